//! What the kernel says of this process. Names are those of Prometheus' client libraries.

use std::fs;

use super::families as f;
use super::sheet::Sheet;

/// Writes down what can be read; what cannot is left out.
pub fn fill(sheet: &mut Sheet) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse) {
        #[expect(clippy::cast_precision_loss, reason = "a hundred, or the like")]
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        sheet.set(&f::PROCESS_CPU, &[], stat.cpu_ticks / ticks);
        sheet.set(&f::PROCESS_THREADS, &[], stat.threads);
        sheet.set(&f::PROCESS_VIRTUAL, &[], stat.virtual_bytes);
        #[expect(clippy::cast_precision_loss, reason = "a page's size is small")]
        sheet.set(&f::PROCESS_RESIDENT, &[], stat.resident_pages * rustix::param::page_size() as f64);
        if let Some(boot) = boot_time() {
            sheet.set(&f::PROCESS_START, &[], boot + stat.start_ticks / ticks);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        sheet.count(&f::PROCESS_FDS, &[], open.count() as u64);
    }
    if let Some(max) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        sheet.count(&f::PROCESS_MAX_FDS, &[], max);
    }
}

struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

/// proc(5): fields are counted from the process's name, which may hold blanks and brackets.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<f64> =
        stat.rsplit_once(')')?.1.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // Field 4 of proc(5) comes first here.
    let at = |field: usize| fields.get(field - 4).copied();
    Some(Stat {
        cpu_ticks: at(14)? + at(15)?,
        threads: at(20)?,
        start_ticks: at(22)?,
        virtual_bytes: at(23)?,
        resident_pages: at(24)?,
    })
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_shifts_nothing() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 7 18 9000 4096000 120 21";
        for name in ["watchdogd", "a b", "odd) (name"] {
            let stat = parse(&format!("42 ({name}) {rest}")).expect("it is complete");
            let found = [stat.cpu_ticks, stat.threads, stat.start_ticks, stat.virtual_bytes, stat.resident_pages];
            assert_eq!(found.map(|value| value as u64), [300, 7, 9000, 4_096_000, 120], "{name}");
        }
        for broken in ["", "42 watchdogd S 1", "42 (watchdogd) S 1 2"] {
            assert!(parse(broken).is_none(), "{broken}");
        }
    }
}
