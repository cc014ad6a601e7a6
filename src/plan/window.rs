//! Windows: the times at which services are restarted unasked.
//!
//! `Sat 03:00..05:00` or `Mon..Fri *-*-1..7 23:00..01:00`: the days as in systemd.time(7), then the
//! times at which the window opens and closes. If it closes before it opens, that is on the next
//! day.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::{Timestamp, ToSpan, ZonedDateTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The minutes of the shortest window: the timer looks for open ones every five minutes.
const SHORTEST: i32 = 15;

/// For how many days to look for the next opening: the 29th of February may be eight years away.
const DAYS: i32 = 366 * 9;

/// A recurring time of at most one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// As it was written, with single spaces.
    text: String,
    weekdays: Values,
    years: Values,
    months: Values,
    days: Values,
    opens: Time,
    closes: Time,
}

/// The values of one part of a date; `None` is `*`.
type Values = Option<Vec<RangeInclusive<i16>>>;

/// Why a text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a window: {why} (as in \"Sat 03:00..05:00\")")]
pub(crate) struct WindowError {
    text: String,
    why: String,
}

impl Window {
    /// When the window opened that is open `now`.
    pub(crate) fn opened(&self, now: &ZonedDateTime) -> Option<ZonedDateTime> {
        let days = [Some(now.date()), now.date().yesterday().ok()];
        let open = days.into_iter().flatten().filter_map(|day| self.on(day, now));
        open.filter(|(opens, closes)| opens <= now && now < closes).map(|(opens, _)| opens).next()
    }

    /// Whether the window is open `now` and opened after `since`: what waits since then is due.
    pub(crate) fn is_due(&self, since: Timestamp, now: &ZonedDateTime) -> bool {
        self.opened(now).is_some_and(|opened| opened.timestamp() > since)
    }

    /// When the window opens next, if it ever does.
    pub(crate) fn next(&self, now: &ZonedDateTime) -> Option<ZonedDateTime> {
        let days = (0..DAYS).filter_map(|after| now.date().checked_add(after.days()).ok());
        days.filter_map(|day| self.on(day, now)).map(|(opens, _)| opens).find(|opens| opens > now)
    }

    /// The opening and the closing of the window that opens on this day. A time that a change of
    /// the clocks skips is the one after it.
    fn on(&self, day: Date, now: &ZonedDateTime) -> Option<(ZonedDateTime, ZonedDateTime)> {
        let weekday = i16::from(day.weekday().to_monday_one_offset());
        let parts = [
            (&self.weekdays, weekday),
            (&self.years, day.year()),
            (&self.months, day.month().into()),
            (&self.days, day.day().into()),
        ];
        if !parts.into_iter().all(|(values, value)| has(values, value)) {
            return None;
        }
        let last = if self.closes > self.opens { day } else { day.tomorrow().ok()? };
        let zone = now.time_zone();
        let at = |day: Date, time| day.to_datetime(time).to_zoned_datetime(zone.clone()).ok();
        Some((at(day, self.opens)?, at(last, self.closes)?))
    }
}

fn has(values: &Values, value: i16) -> bool {
    values.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&value)))
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        parse(text).map_err(|why| WindowError { text: text.to_string(), why })
    }
}

fn parse(text: &str) -> Result<Window, String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let times = words.pop().and_then(|word| word.split_once(".."));
    let (opens, closes) = times.ok_or("it ends with the times at which it opens and closes")?;
    let (opens, closes) = (time(opens)?, time(closes)?);
    let minutes = |time: Time| i32::from(time.hour()) * 60 + i32::from(time.minute());
    // Past midnight if it is negative.
    let long = (minutes(closes) - minutes(opens)).rem_euclid(24 * 60);
    if (1..SHORTEST).contains(&long) {
        return Err("it is shorter than 15 minutes".into());
    }
    let (weekdays, date) = match words.as_slice() {
        [] => (None, None),
        [date] if date.contains('-') => (None, Some(*date)),
        [weekdays] => (values(weekdays, weekday)?, None),
        [weekdays, date] => (values(weekdays, weekday)?, Some(*date)),
        _ => return Err("it has too many words".into()),
    };
    let [years, months, days] = date.map_or(Ok([None, None, None]), date_parts)?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Window { text, weekdays, years, months, days, opens, closes })
}

/// `YEAR-MONTH-DAY`, or `MONTH-DAY`.
fn date_parts(date: &str) -> Result<[Values; 3], String> {
    let parts: Vec<&str> = date.split('-').collect();
    let (year, month, day) = match parts.as_slice() {
        [year, month, day] => (*year, month, day),
        [month, day] => ("*", month, day),
        _ => return Err(format!("{date:?} is not a date")),
    };
    Ok([
        values(year, |text| number(text, 1970..=9999))?,
        values(month, |text| number(text, 1..=12))?,
        values(day, |text| number(text, 1..=31))?,
    ])
}

/// `*`, or values and ranges, separated by commas.
fn values(text: &str, one: impl Fn(&str) -> Result<i16, String>) -> Result<Values, String> {
    if text == "*" {
        return Ok(None);
    }
    let range = |part: &str| {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let range = one(first)?..=one(last)?;
        if range.is_empty() { Err(format!("{part:?} is an empty range")) } else { Ok(range) }
    };
    text.split(',').map(range).collect::<Result<_, _>>().map(Some)
}

fn number(text: &str, among: RangeInclusive<i16>) -> Result<i16, String> {
    let number = text.parse().ok().filter(|number| among.contains(number));
    number.ok_or_else(|| {
        format!("{text:?} is not a number from {} to {}", among.start(), among.end())
    })
}

/// `Sat` or `Saturday`, as a number from Monday, 1, to Sunday, 7.
fn weekday(text: &str) -> Result<i16, String> {
    const NAMES: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.to_ascii_lowercase();
    let is_named = |day: &Weekday| {
        let name = NAMES.get(usize::from(day.to_monday_zero_offset().unsigned_abs()));
        name.is_some_and(|name| text == *name || Some(text.as_str()) == name.get(..3))
    };
    let found = Weekday::Monday.cycle_forward().take(7).find(is_named);
    found
        .map(|day| i16::from(day.to_monday_one_offset()))
        .ok_or_else(|| format!("{text:?} is not a day of the week"))
}

/// `HOUR:MINUTE`.
fn time(text: &str) -> Result<Time, String> {
    let wrong = || format!("{text:?} is not a time from 00:00 to 23:59");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let (hour, minute) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    Time::new(hour, minute, 0, 0).map_err(|_| wrong())
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    /// The clocks of Central Europe, which change on 2026-03-29 and 2026-10-25.
    fn at(text: &str) -> ZonedDateTime {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned_datetime(zone).unwrap()
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_opens_on_its_days_only() {
        // 2026-12-05 is a Saturday.
        for (text, now, next) in [
            ("Sat 03:00..05:00", "2026-12-01T12:00", "2026-12-05T03:00"),
            ("Sat 03:00..05:00", "2026-12-05T03:00", "2026-12-12T03:00"),
            ("Sat *-*-* 03:00..05:00", "2026-12-05T02:59", "2026-12-05T03:00"),
            ("saturday,Sun 03:00..05:00", "2026-12-05T12:00", "2026-12-06T03:00"),
            ("Mon..Fri 03:00..05:00", "2026-12-05T12:00", "2026-12-07T03:00"),
            ("Sat *-*-1..7 03:00..05:00", "2026-12-05T12:00", "2027-01-02T03:00"),
            ("*-*-01,15 03:00..05:00", "2026-12-05T12:00", "2026-12-15T03:00"),
            ("02-29 03:00..05:00", "2026-12-05T12:00", "2028-02-29T03:00"),
            ("03:30..04:00", "2026-12-05T12:00", "2026-12-06T03:30"),
            // There is no 02:30 on this day.
            ("Sun 02:30..05:00", "2026-03-28T12:00", "2026-03-29T03:30"),
        ] {
            assert_eq!(window(text).next(&at(now)), Some(at(next)), "{text} after {now}");
        }
        assert_eq!(window("2026-01-* 03:00..05:00").next(&at("2026-12-05T12:00")), None);
        assert_eq!(window("02-30 03:00..05:00").next(&at("2026-12-05T12:00")), None);
    }

    #[test]
    fn a_window_is_open_until_it_closes_and_past_midnight() {
        for (text, now, opened) in [
            ("Sat 03:00..05:00", "2026-12-05T02:59:59", None),
            ("Sat 03:00..05:00", "2026-12-05T03:00", Some("2026-12-05T03:00")),
            ("Sat 03:00..05:00", "2026-12-05T04:59:59", Some("2026-12-05T03:00")),
            ("Sat 03:00..05:00", "2026-12-05T05:00", None),
            ("Sat 23:00..01:00", "2026-12-06T00:59", Some("2026-12-05T23:00")),
            ("Sat 23:00..01:00", "2026-12-06T23:30", None),
            ("Sat 00:00..00:00", "2026-12-05T23:59", Some("2026-12-05T00:00")),
        ] {
            assert_eq!(window(text).opened(&at(now)), opened.map(at), "{text} at {now}");
        }
    }

    #[test]
    fn what_waits_is_due_once_in_each_window() {
        let (window, now) = (window("Sat 03:00..05:00"), at("2026-12-05T03:04"));
        let is_due = |since: &str| window.is_due(at(since).timestamp(), &now);
        assert!(is_due("2026-12-01T12:00"));
        assert!(!is_due("2026-12-05T03:00"), "it was tried in this window");
        assert!(!window.is_due(Timestamp::UNIX_EPOCH, &at("2026-12-05T06:00")), "it is closed");
    }

    #[test]
    fn what_is_not_a_window_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "it ends with the times"),
            ("Sat 03:00", "it ends with the times"),
            ("Sat 3..5", "\"3\" is not a time"),
            ("Sat 24:00..05:00", "\"24:00\" is not a time"),
            ("Sut 03:00..05:00", "\"sut\" is not a day of the week"),
            ("Fri..Mon 03:00..05:00", "\"Fri..Mon\" is an empty range"),
            ("*-13-* 03:00..05:00", "\"13\" is not a number from 1 to 12"),
            ("*-*-*-* 03:00..05:00", "\"*-*-*-*\" is not a date"),
            ("Sat *-*-* UTC 03:00..05:00", "too many words"),
            ("Sat 03:00..03:10", "shorter than 15 minutes"),
            ("Sat 23:55..00:05", "shorter than 15 minutes"),
        ] {
            let error = text.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("Sat 03:00..05:00"), "{text}: {error}");
        }
    }

    #[test]
    fn a_window_is_stored_as_it_was_written() {
        let window: Window = serde_json::from_str(r#"" Sat\n*-*-1..7  03:00..05:00""#).unwrap();
        let json = serde_json::to_string(&window).unwrap();
        assert_eq!(json, "\"Sat *-*-1..7 03:00..05:00\"");
        assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window);
    }
}
