//! The flags of the audit, under upstream's names.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use oarlock_apiserver::{AuditConfig, AuditLogConfig, AuditWebhookConfig, LogFormat};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One event a line, as JSON.
    Json,
    /// One event a line, a few of its fields as text.
    Legacy,
}

#[derive(Debug, Args)]
pub struct AuditFlags {
    /// Which requests are recorded, and how much of them: a Policy of audit.k8s.io/v1 [default: none are]
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where the audit log is written; - is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// How events are written to the audit log
    #[arg(long, value_enum, default_value_t = Format::Json)]
    audit_log_format: Format,
    /// After how many days old audit logs are removed; 0: never
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u32,
    /// How many old audit logs are kept; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    audit_log_maxbackup: usize,
    /// How large an audit log gets before a new one is begun; 0: 100
    #[arg(long, default_value_t = 0, value_name = "MEGABYTES")]
    audit_log_maxsize: u64,
    /// Where events are sent, as a kubeconfig
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// How many events are sent together
    #[arg(long, default_value_t = 400, value_name = "N")]
    audit_webhook_batch_max_size: usize,
    /// How long the first event of a batch waits for others, as in 30s
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    audit_webhook_batch_max_wait: std::time::Duration,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    span.try_into()
        .map_err(|_| "it must not be negative".to_owned())
}

impl AuditFlags {
    pub fn config(&self) -> AuditConfig {
        let log = self.audit_log_path.clone().map(|path| AuditLogConfig {
            path,
            format: match self.audit_log_format {
                Format::Json => LogFormat::Json,
                Format::Legacy => LogFormat::Legacy,
            },
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_size_mib: self.audit_log_maxsize,
        });
        let webhook = self.audit_webhook_config_file.clone();
        AuditConfig {
            policy_file: self.audit_policy_file.clone(),
            log,
            webhook: webhook.map(|kubeconfig| AuditWebhookConfig {
                max_batch: self.audit_webhook_batch_max_size,
                max_wait: self.audit_webhook_batch_max_wait,
                ..AuditWebhookConfig::new(kubeconfig)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        audit: AuditFlags,
    }

    #[test]
    fn flags() {
        let read = |line: &str| Flags::try_parse_from(line.split(' ')).map(|f| f.audit.config());
        let config = read("x").unwrap();
        assert!(config.policy_file.is_none() && config.log.is_none() && config.webhook.is_none());
        let config = read("x --audit-policy-file p --audit-log-path - --audit-log-format legacy --audit-webhook-config-file w \
             --audit-webhook-batch-max-wait 500ms").unwrap();
        assert_eq!(config.log.unwrap().format, LogFormat::Legacy);
        assert_eq!(config.webhook.unwrap().max_wait.as_millis(), 500);
        assert!(read("x --audit-log-path -").is_err());
        assert!(read("x --audit-webhook-batch-max-wait -1s").is_err());
    }
}
