//! Results, as a table for people or as CSV for `benches/records`.

use std::time::{SystemTime, UNIX_EPOCH};
use subquad::Isa;

/// One line of results. What does not apply is NaN and printed as nothing.
pub struct Line {
    pub shape: String,
    pub isa: Isa,
    /// Useful flops per second.
    pub speed: f64,
    /// Share of the peak of this machine's widest vectors.
    pub peak: f64,
    /// Share of the peak of the back end's own vectors.
    pub own: f64,
    /// Share of the peak that is attainable.
    pub bare: f64,
    /// Bytes of keys and values per second.
    pub bytes: f64,
    /// Speed relative to a loop that only reads.
    pub read: f64,
    /// Speed relative to one thread.
    pub threads: f64,
}

impl Line {
    pub fn new(shape: &str, isa: Isa, speed: f64) -> Line {
        let none = f64::NAN;
        Line {
            shape: shape.to_string(),
            isa,
            speed,
            peak: none,
            own: none,
            bare: none,
            bytes: none,
            read: none,
            threads: none,
        }
    }

    /// What both forms print, in the order of [`COLUMNS`].
    fn numbers(&self) -> [(f64, usize); 7] {
        [
            (self.speed / 1e9, 1),
            (self.peak, 3),
            (self.own, 3),
            (self.bare, 3),
            (self.bytes / 1e9, 1),
            (self.read, 2),
            (self.threads, 2),
        ]
    }
}

const COLUMNS: [&str; 7] = ["GFLOP/s", "peak", "own", "bare", "GB/s", "read", "threads"];

/// Where lines go.
pub struct Records {
    csv: bool,
    date: String,
    cpu: String,
}

impl Records {
    /// Prints the head; CSV if the command line says `--csv`.
    pub fn begin() -> Records {
        let records = Records {
            csv: std::env::args().any(|a| a == "--csv"),
            date: today(),
            cpu: cpu(),
        };
        if records.csv {
            println!("date,cpu,shape,isa,{}", COLUMNS.join(","));
        } else {
            println!("{}, {}", records.cpu, records.date);
        }
        records
    }

    pub fn section(&self, title: &str) {
        if !self.csv {
            let columns: String = COLUMNS.iter().map(|c| format!("{c:>9}")).collect();
            println!("\n{title}\n  {:<26}{:<14}{columns}", "shape", "back end");
        }
    }

    pub fn add(&self, line: Line) {
        let number = |(x, digits): (f64, usize)| {
            if x.is_nan() {
                String::new()
            } else {
                format!("{x:.digits$}")
            }
        };
        let (shape, isa, numbers) = (&line.shape, line.isa.name(), line.numbers().map(number));
        if self.csv {
            println!("{},{},{shape},{isa},{}", self.date, self.cpu, numbers.join(","));
        } else {
            let numbers: String = numbers.iter().map(|x| format!("{x:>9}")).collect();
            println!("  {shape:<26}{isa:<14}{}", numbers.trim_end());
        }
    }
}

/// The processor's name for itself, without commas.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split(": ").nth(1));
    name.unwrap_or(std::env::consts::ARCH).replace(',', " ")
}

/// Year-month-day, UTC.
fn today() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut day = now.map_or(0, |now| now.as_secs() / 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, day + 1)
}
