//! The audit log: a line for each event, in a file that is put aside when it is large, or on standard output.
//! Files that were put aside are named by when: `audit-2026-11-24T10-00-00.000.log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::event::Event;
use super::queue::Backend;
use super::{AuditLogConfig, Counters};

/// As upstream's log writer has it, if nothing is said.
const DEFAULT_SIZE_MIB: u64 = 100;
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Json,
    Legacy,
}

#[derive(Debug)]
pub(super) struct LogFile {
    config: AuditLogConfig,
    /// `None`: standard output.
    file: Option<File>,
    size: u64,
    max_size: u64,
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl LogFile {
    pub fn open(config: AuditLogConfig) -> io::Result<Self> {
        let mib = match config.max_size_mib {
            0 => DEFAULT_SIZE_MIB,
            n => n,
        };
        let mut log = Self {
            file: None,
            size: 0,
            max_size: mib.saturating_mul(1024 * 1024),
            config,
        };
        if log.config.path != Path::new("-") {
            if let Some(dir) = log.config.path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let (file, size) = open(&log.config.path)?;
            (log.file, log.size) = (Some(file), size);
        }
        Ok(log)
    }

    fn flush(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(lines)?,
            None => io::stdout().lock().write_all(lines)?,
        }
        self.size += lines.len() as u64;
        lines.clear();
        Ok(())
    }

    fn write_all(&mut self, events: &[Arc<Event>], now: Timestamp) -> io::Result<()> {
        let (mut lines, mut line, mut text) = (Vec::new(), Vec::new(), String::new());
        for event in events {
            line.clear();
            match self.config.format {
                LogFormat::Json => event.write_json(&mut line, true),
                LogFormat::Legacy => {
                    text.clear();
                    event.write_line(&mut text);
                    line.extend_from_slice(text.as_bytes());
                }
            }
            line.push(b'\n');
            let filled = self.size + lines.len() as u64;
            if self.file.is_some() && filled > 0 && filled + line.len() as u64 > self.max_size {
                self.flush(&mut lines)?;
                self.put_aside(now)?;
            }
            lines.append(&mut line);
        }
        self.flush(&mut lines)
    }

    /// Begins a new file, and removes those that are too many or too old.
    fn put_aside(&mut self, now: Timestamp) -> io::Result<()> {
        let path = self.config.path.clone();
        let (stem, end) = parts(&path);
        let mut aside = path.with_file_name(format!("{stem}{}{end}", now.strftime(STAMP)));
        // Two in one millisecond: the later one gets a later name.
        let mut later = now;
        while aside.exists() {
            later += jiff::SignedDuration::from_millis(1);
            aside = path.with_file_name(format!("{stem}{}{end}", later.strftime(STAMP)));
        }
        std::fs::rename(&path, aside)?;
        let (file, size) = open(&path)?;
        (self.file, self.size) = (Some(file), size);
        self.remove_old(now)
    }

    fn remove_old(&self, now: Timestamp) -> io::Result<()> {
        let mut old = aside_of(&self.config.path)?;
        old.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let days = i64::from(self.config.max_age_days);
        for (index, (at, path)) in old.iter().enumerate() {
            let too_many = self.config.max_backups > 0 && index >= self.config.max_backups;
            let age = now.as_second() - at.as_second();
            if too_many || (days > 0 && age > days * SECONDS_OF_A_DAY) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// What stands before and behind the time in the name of a file that was put aside.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let end = text(path.extension());
    let end = if end.is_empty() {
        end
    } else {
        format!(".{end}")
    };
    (format!("{}-", text(path.file_stem())), end)
}

/// The files that were put aside, and when.
fn aside_of(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, end) = parts(path);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stamp = name
            .strip_prefix(&*stem)
            .and_then(|rest| rest.strip_suffix(&*end));
        let at = stamp
            .and_then(|text| DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", text).ok())
            .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok());
        if let Some(at) = at {
            found.push((at.timestamp(), entry.path()));
        }
    }
    Ok(found)
}

impl Backend for LogFile {
    const NAME: &'static str = "log";

    fn errors(counters: &Counters) -> &AtomicU64 {
        &counters.log_errors
    }

    fn write(&mut self, events: &[Arc<Event>], _: &AtomicBool) -> Result<(), String> {
        self.write_all(events, Timestamp::now())
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::tests::event;

    #[test]
    fn a_large_file_is_put_aside_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/audit.log");
        let config = AuditLogConfig {
            path: path.clone(),
            format: LogFormat::Json,
            max_age_days: 2,
            max_backups: 2,
            max_size_mib: 1,
        };
        let mut log = LogFile::open(config.clone()).unwrap();
        log.max_size = 1500;
        let ancient = dir.path().join("deep/audit-2020-01-01T00-00-00.000.log");
        std::fs::write(&ancient, "old").unwrap();
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let events: Vec<Arc<Event>> = (0..6).map(|_| Arc::new(event("i"))).collect();
        log.write_all(&events, now).unwrap();
        assert!(!ancient.exists());
        let aside = aside_of(&path).unwrap();
        assert_eq!(aside.len(), 2, "{aside:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!((1..=2).contains(&text.lines().count()), "{text}");
        // A new start goes on where the last one ended.
        let log = LogFile::open(config).unwrap();
        assert_eq!(log.size, text.len() as u64);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = AuditLogConfig {
            path: file.path().join("audit.log"),
            format: LogFormat::Legacy,
            max_age_days: 0,
            max_backups: 0,
            max_size_mib: 0,
        };
        assert!(LogFile::open(config).is_err());
    }
}
