//! The value of the Date field, made anew once a second.
//!
//! Owns one formatted date. Never reads the wall clock more often than that. RFC 9110 5.6.7 (IMF-fixdate).

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::Duration;

use time::OffsetDateTime;

use crate::reactor::Instant;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date that is at most a second old.
#[derive(Debug, Default)]
pub(crate) struct Date {
    until: Cell<Option<Instant>>,
    text: RefCell<String>,
}

impl Date {
    /// Appends the date as of `now` to `out`.
    pub(crate) fn write(&self, now: Instant, out: &mut Vec<u8>) {
        if self.until.get().is_none_or(|until| now >= until) {
            let wall = OffsetDateTime::now_utc();
            let left = Duration::from_nanos(u64::from(
                1_000_000_000 - wall.nanosecond().min(999_999_999),
            ));
            self.until.set(Some(now + left));
            let mut text = self.text.borrow_mut();
            text.clear();
            write_date(wall, &mut text);
        }
        out.extend_from_slice(self.text.borrow().as_bytes());
    }
}

/// Appends to `out`, whose memory is kept from second to second.
fn write_date(at: OffsetDateTime, out: &mut String) {
    write!(
        out,
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(at.weekday().number_days_from_monday())],
        at.day(),
        MONTHS[usize::from(u8::from(at.month()) - 1)],
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
    .expect("a String takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_an_imf_fixdate() {
        let at = OffsetDateTime::from_unix_timestamp(784_111_777).expect("a valid time");
        let mut text = String::new();
        write_date(at, &mut text);
        assert_eq!(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
