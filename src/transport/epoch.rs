//! Epochs, zones and transitions.
