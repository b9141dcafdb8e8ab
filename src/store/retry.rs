use std::time::Duration;

use backon::BackoffBuilder as _;

/// Pauses between attempts at a store that is away: each about twice the one
/// before, from `min` up to `max`, jittered so that callers do not come back all
/// at once. They never end.
pub fn retry_delays(min: Duration, max: Duration) -> impl FnMut() -> Duration + Send {
    let mut delays = backon::ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times()
        .build();
    move || delays.next().unwrap_or(max)
}
