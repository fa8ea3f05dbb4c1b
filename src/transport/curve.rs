//! Window curves: the congestion window as an integer function of the packet number.
