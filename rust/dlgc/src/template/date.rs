//! The day that templates print: an option, never the clock.

/// A calendar day, for templates that print one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: i32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let shape =
            |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
        if text.len() != 10 || !text.bytes().enumerate().all(shape) {
            return None;
        }
        let mut parts = text.splitn(3, '-').map(str::parse::<u32>);
        let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) = (parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self { year: year as i32, month, day })
    }

    fn weekday(self) -> usize {
        // Sakamoto's method.
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - i32::from(self.month < 3);
        let sum = year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1] + self.day as i32;
        sum.rem_euclid(7) as usize
    }

    /// `datetime.strftime` at midnight, in the C locale; codes it does not know stay as they are.
    pub(super) fn strftime(self, format: &str) -> String {
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let month = MONTHS[self.month as usize - 1];
            let weekday = WEEKDAYS[self.weekday()];
            match characters.next() {
                Some('Y') => out += &format!("{:04}", self.year),
                Some('y') => out += &format!("{:02}", self.year % 100),
                Some('m') => out += &format!("{:02}", self.month),
                Some('d') => out += &format!("{:02}", self.day),
                Some('B') => out += month,
                Some('b' | 'h') => out += &month[..3],
                Some('A') => out += weekday,
                Some('a') => out += &weekday[..3],
                Some('F') => out += &format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('H' | 'M' | 'S') => out += "00",
                Some('I') => out += "12",
                Some('p') => out += "AM",
                Some('-') => match characters.next() {
                    Some('d') => out += &self.day.to_string(),
                    Some('m') => out += &self.month.to_string(),
                    Some(other) => out.extend(['%', '-', other]),
                    None => out += "%-",
                },
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_as_python_prints_them() {
        let date = Date::parse("2024-07-26").expect("a date");
        assert_eq!(date.strftime("%d %b %Y, %A %-m %y%%"), "26 Jul 2024, Friday 7 24%");
        assert_eq!(Date::parse("2023-02-29"), None);
        for wrong in ["2024-13-01", "2026-2-8", "+026-01-01", "2026/01/01", "0000-01-01"] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }
}
