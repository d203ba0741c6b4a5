//! The real Helm with its own example chart.

use oarlock_tests::{Oarlock, Options};

#[test]
fn create_install_upgrade_rollback_uninstall() {
    let cluster = Oarlock::start(Options::default());
    cluster.helm(&["create", "demo"]);
    let installed = cluster.helm(&["install", "first", "demo", "--wait", "--timeout", "60s"]);
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    cluster.kubectl(&[
        "rollout",
        "status",
        "deployment/first-demo",
        "--timeout=60s",
    ]);
    cluster.helm(&[
        "upgrade",
        "first",
        "demo",
        "--set",
        "replicaCount=3",
        "--wait",
        "--timeout",
        "60s",
    ]);
    let replicas = || {
        cluster.kubectl(&[
            "get",
            "deploy",
            "first-demo",
            "-o",
            "jsonpath={.spec.replicas}",
        ])
    };
    assert_eq!(replicas(), "3");
    cluster.helm(&["rollback", "first", "1", "--wait", "--timeout", "60s"]);
    assert_eq!(replicas(), "1");
    let history = cluster.helm(&["history", "first"]);
    assert!(history.contains("Rollback to 1"), "{history}");
    cluster.helm(&["uninstall", "first", "--wait", "--timeout", "60s"]);
    assert!(!cluster.kubectl(&["get", "all"]).contains("first-demo"));
}
