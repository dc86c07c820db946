//! How long an object store on the network takes to answer.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::Rng as _;

/// How far the 99th percentile of the normal distribution lies from its middle.
const Z99: f64 = 2.326_347_874;

/// Delays whose logarithm is normally distributed: most are short, few are long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lognormal {
    median: f64,
    sigma: f64,
}

impl Lognormal {
    /// By its median and its 99th percentile.
    pub fn new(p50: Duration, p99: Duration) -> Self {
        let (median, p99) = (p50.as_secs_f64(), p99.as_secs_f64());
        Self { median, sigma: (p99 / median).ln() / Z99 }
    }

    /// One delay; at most ten times the 99th percentile, so that no test waits for a freak.
    pub fn draw(&self) -> Duration {
        let mut random = rand::rng();
        // Box and Muller's way from even to normal.
        let (a, b): (f64, f64) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random());
        let normal = (-2.0 * a.ln()).sqrt() * (TAU * b).cos();
        let most = self.median * (self.sigma * Z99).exp() * 10.0;
        Duration::from_secs_f64((self.median * (self.sigma * normal).exp()).min(most))
    }
}

/// How much later answers come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delays {
    /// Of what only reads.
    pub reads: Lognormal,
    /// Of what changes something.
    pub writes: Lognormal,
}

impl Delays {
    /// As S3 is seen from within its region: reads 30 ms (p99 150 ms), writes 60 ms (p99 250 ms).
    pub fn realistic() -> Self {
        let lognormal =
            |p50, p99| Lognormal::new(Duration::from_millis(p50), Duration::from_millis(p99));
        Self { reads: lognormal(30, 150), writes: lognormal(60, 250) }
    }

    pub(super) fn draw(&self, verb: &str) -> Duration {
        match verb {
            "GET" | "HEAD" | "LIST" => self.reads.draw(),
            _ => self.writes.draw(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_the_percentiles_that_were_asked_for() {
        let reads = Delays::realistic().reads;
        let mut drawn: Vec<_> = (0..20_000).map(|_| reads.draw()).collect();
        drawn.sort();
        let at = |part: f64| drawn[(drawn.len() as f64 * part) as usize].as_secs_f64() * 1000.0;
        // Twenty thousand draws are off by one part in a hundred at most.
        assert!((27.0..33.0).contains(&at(0.5)), "{}", at(0.5));
        assert!((125.0..180.0).contains(&at(0.99)), "{}", at(0.99));
    }
}
