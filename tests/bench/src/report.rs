//! The table: one row a measurement.

use std::time::Duration;

/// One measurement.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub work: String,
    pub result: String,
    pub latency: String,
    /// Server CPU per operation.
    pub cpu: String,
    pub note: String,
}

#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub fn add(&mut self, row: Row) {
        println!(
            "{:<34} {:<18} {:<26} {:<12} {}",
            row.work, row.result, row.latency, row.cpu, row.note
        );
        self.rows.push(row);
    }

    pub fn print(&self) {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "work",
            "result",
            "latency",
            "server CPU per operation",
            "note",
        ]);
        for row in &self.rows {
            table.add_row([&row.work, &row.result, &row.latency, &row.cpu, &row.note]);
        }
        println!("\n{table}");
    }
}

/// `p50 1.2 ms, p99 4.0 ms`
pub fn latency(mut samples: Vec<Duration>) -> String {
    if samples.is_empty() {
        return String::new();
    }
    samples.sort();
    let at =
        |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99))
}

pub fn per_second(count: usize, took: Duration) -> String {
    format!("{:.0} /s", count as f64 / took.as_secs_f64())
}

/// CPU time per operation.
pub fn each(cpu: Duration, count: usize) -> String {
    format!("{:.0} us", cpu.as_secs_f64() * 1e6 / count as f64)
}
