//! Values as people write them: counts, sizes (`16KiB`) and durations (`250ms`),
//! each held against the bounds of its option.

use std::{fmt, time::Duration};

use bytesize::ByteSize;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// What an option may be, both ends included. Its `Display` is what `--help`
/// and a refusal show, so that the two cannot drift apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    Count(u64, u64),
    /// In bytes.
    Size(u64, u64),
    /// In milliseconds.
    Time(u64, u64),
}

impl Bounds {
    /// Reads `text` as a value within these bounds: a count, bytes or
    /// milliseconds as the variant says.
    pub(super) fn read(self, text: &str) -> Result<u64, String> {
        let (min, max, value) = match self {
            Self::Count(min, max) => (min, max, parse_count(text)),
            Self::Size(min, max) => (min, max, parse_size(text)),
            Self::Time(min, max) => (min, max, parse_millis(text)),
        };
        match value {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            Some(_) => Err(format!("{} is not within {self}", quote(text))),
            None => Err(format!(
                "{} is not {} within {self}",
                quote(text),
                self.noun()
            )),
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Count(..) => "a whole number",
            Self::Size(..) => "a size such as 16KiB",
            Self::Time(..) => "a duration such as 250ms, 2s or 5m",
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count(min, max) => write!(f, "{min}..={max}"),
            Self::Size(min, max) => {
                let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "B")];
                write!(f, "{}..={}", in_units(min, &units), in_units(max, &units))
            }
            Self::Time(min, max) => {
                let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
                write!(f, "{}..={}", in_units(min, &units), in_units(max, &units))
            }
        }
    }
}

/// `value` in the largest unit that holds it exactly.
fn in_units(value: u64, units: &[(u64, &str)]) -> String {
    units
        .iter()
        .find(|(size, _)| value >= *size && value.is_multiple_of(*size))
        .map_or_else(
            || value.to_string(),
            |(size, unit)| format!("{}{unit}", value / size),
        )
}

/// A number that is too large to hold is still a number: it saturates and then
/// is out of bounds.
fn parse_count(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn parse_size(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// Milliseconds, the finest unit an option can have: anything finer is not
/// rounded away but refused.
fn parse_millis(text: &str) -> Option<u64> {
    let time: Duration = humantime::parse_duration(text).ok()?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    time.subsec_nanos()
        .is_multiple_of(1_000_000)
        .then_some(millis)
}

/// Text from outside, fit for one line: control characters escaped, cut to a
/// length that a person still reads.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut quoted: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        quoted.push('…');
    }
    if quoted.is_empty() || quoted.contains(char::is_whitespace) {
        quoted = format!("\"{quoted}\"");
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_within() {
        let bounds = Bounds::Count(1, 4096);
        assert_eq!(bounds.read("1"), Ok(1));
        assert_eq!(bounds.read("4096"), Ok(4096));
        assert_eq!(bounds.read("0").unwrap_err(), "0 is not within 1..=4096");
        assert_eq!(
            bounds.read("99999999999999999999999").unwrap_err(),
            "99999999999999999999999 is not within 1..=4096"
        );
        for bad in ["", "-1", "+1", "1.5", "1k", "0x10", " 1"] {
            let why = bounds.read(bad).unwrap_err();
            assert!(why.contains("is not a whole number within"), "{why}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let bounds = Bounds::Size(64 * KIB, 4 * GIB);
        assert_eq!(bounds.to_string(), "64KiB..=4GiB");
        assert_eq!(bounds.read("1MiB"), Ok(MIB));
        assert_eq!(bounds.read("1.5 MiB"), Ok(MIB + MIB / 2));
        assert_eq!(bounds.read("65536"), Ok(64 * KIB));
        assert!(bounds.read("63KiB").is_err());
        assert!(bounds.read("99999999999999PiB").is_err());
        assert!(bounds.read("lots").unwrap_err().contains("16KiB"));
    }

    #[test]
    fn durations_have_units() {
        let bounds = Bounds::Time(100, 24 * 3_600_000);
        assert_eq!(bounds.to_string(), "100ms..=24h");
        assert_eq!(bounds.read("250ms"), Ok(250));
        assert_eq!(bounds.read("5m"), Ok(300_000));
        assert_eq!(bounds.read("1m 30s"), Ok(90_000));
        assert!(bounds.read("99ms").is_err());
        assert!(bounds.read("25h").is_err());
        assert!(bounds.read("100500us").is_err());
        assert!(bounds.read("60").unwrap_err().contains("250ms"));
    }

    #[test]
    fn quoted_text_is_one_short_line() {
        assert_eq!(quote("a\nb"), "a\u{fffd}b");
        assert_eq!(quote(""), "\"\"");
        assert!(quote(&"x".repeat(500)).chars().count() < 100);
    }
}
