//! The sockets by which an operator watches and commands a loop: metrics and control.
//!
//! In: events of the poll. Out: metrics, and commands for the loop's owner. Serves neither unless asked
//! to.

use std::io;

use mio::{Registry, Token};

use super::OsClock;
use super::control::ControlServer;
use super::metrics::MetricsServer;
use crate::host::metrics::Metric;
use crate::time::Instant;

/// The servers for an operator, if any.
#[derive(Debug, Default)]
pub(super) struct Admin {
    metrics: Option<MetricsServer>,
    control: Option<ControlServer>,
}

impl Admin {
    /// Also serves requests for metrics.
    pub(super) fn serve_metrics(&mut self, to: &Registry, server: MetricsServer) -> io::Result<()> {
        self.metrics = Some(server.registered(to)?);
        Ok(())
    }

    /// Also executes commands of a control socket.
    pub(super) fn serve_control(&mut self, to: &Registry, server: ControlServer) -> io::Result<()> {
        self.control = Some(server.registered(to)?);
        Ok(())
    }

    /// Records an event of the loop.
    pub(super) fn note(&mut self, token: Token) {
        if let Some(server) = &mut self.metrics {
            server.note(token);
        }
        if let Some(server) = &mut self.control {
            server.note(token);
        }
    }

    /// Whether there is more work without another event.
    pub(super) fn is_busy(&self) -> bool {
        self.control.as_ref().is_some_and(ControlServer::is_busy)
    }

    /// The earliest deadline of a request for metrics.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.metrics.as_ref().and_then(MetricsServer::deadline)
    }

    /// Executes commands; see [`ControlServer::turn`].
    pub(super) fn execute(
        &mut self,
        registry: &Registry,
        execute: impl FnMut(&str) -> Result<String, String>,
    ) {
        if let Some(server) = &mut self.control {
            server.turn(registry, execute);
        }
    }

    /// Answers requests for metrics; see [`MetricsServer::turn`].
    pub(super) fn answer(
        &mut self,
        clock: OsClock,
        registry: &Registry,
        metrics: impl FnMut() -> Vec<Metric>,
    ) {
        if let Some(server) = &mut self.metrics {
            server.turn(clock.instant(), registry, metrics);
        }
    }
}
