//! Texts that people write into annotations and flags: durations, zones, names of Services.
//!
//! Reading never panics, and what was accepted is accepted again, with the same meaning, as it is written back.

use maesh_config::{ServiceName, Zone, duration};

pub(crate) fn run(bytes: &[u8]) {
    let text = crate::text(bytes);
    if let Ok(zone) = text.parse::<Zone>() {
        assert_eq!(zone.as_str().parse::<Zone>().as_ref(), Ok(&zone));
    }
    if let Ok(name) = text.parse::<ServiceName>() {
        assert_eq!(name.to_string().parse::<ServiceName>(), Ok(name));
    }
    if let Ok(read) = duration::parse(text) {
        // Written with the smallest unit only, unless five digits are too few for it.
        let millis = read.as_millis();
        if millis < 100_000 {
            assert_eq!(duration::parse(&format!("{millis}ms")), Ok(read));
        }
    }
}
