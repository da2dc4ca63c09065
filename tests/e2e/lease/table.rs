//! What the rounds showed, as a table.

use std::time::Duration;

use crate::lab::crowd::Late;

/// One round.
#[derive(Debug)]
pub struct Round {
    /// From the fault to the new primary's first row.
    pub silence: Duration,
    /// Rows the old primary acknowledged before it was silent.
    pub before: usize,
    /// What it answered after the new one's first row.
    pub late: Late,
}

/// Prints all, and the sums.
pub fn print(rounds: &[Round]) {
    println!("\nold primary after the new one's first row:");
    let heads =
        ["round", "fault to it, s", "rows before", "rows, old conn.", "new conn.", "stale reads, old", "new conn."];
    println!("{}", heads.map(|head| format!("{head:>16}")).join(" "));
    let row = |name: String, silence: String, before: usize, late: Late| {
        let Late { rows_old, rows_new, reads_old, reads_new } = late;
        let counts = [before, rows_old, rows_new, reads_old, reads_new].map(|count| format!("{count:>16}")).join(" ");
        println!("{name:>16} {silence:>16} {counts}");
    };
    let mut sum = (0, Late::default());
    for (n, round) in (1..).zip(rounds) {
        let late = round.late;
        row(n.to_string(), format!("{:.3}", round.silence.as_secs_f64()), round.before, late);
        sum.0 += round.before;
        sum.1.rows_old += late.rows_old;
        sum.1.rows_new += late.rows_new;
        sum.1.reads_old += late.reads_old;
        sum.1.reads_new += late.reads_new;
    }
    let mut silences: Vec<f64> = rounds.iter().map(|round| round.silence.as_secs_f64()).collect();
    silences.sort_by(f64::total_cmp);
    let median = silences.get(silences.len() / 2).copied().unwrap_or_default();
    row("all".to_owned(), format!("median {median:.3}"), sum.0, sum.1);
}
