//! Controllers as components: what they ask of the cluster, and how they fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oarlock_guests::hostile;
use oarlock_wasm::controller::{
    DeleteOptions, Failure, Key, Outcome, PatchKind, Query, ResourceInfo,
};
use oarlock_wasm::{
    ControllerInstance, ControllerPlugin, Engine, EngineConfig, Error, FixedEnv, HostEnv, Limits,
    ObjectsHost,
};

/// Config maps by namespace and name; everything else is refused. Each `get` moves the clock.
struct Maps {
    maps: HashMap<(String, String), String>,
    env: Arc<FixedEnv>,
    gets: AtomicU64,
}

fn refused<T>() -> Result<T, Failure> {
    Err(Failure {
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "no".to_owned(),
    })
}

impl ObjectsHost for Maps {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.env.set_now_ms(self.env.now_ms() + 1);
        assert_eq!(resource, "v1/configmaps");
        let found = self
            .maps
            .get(&(key.namespace.clone(), key.name.clone()))
            .cloned();
        found.ok_or_else(|| Failure {
            code: 404,
            reason: "NotFound".to_owned(),
            message: "not found".to_owned(),
        })
    }
    fn list(&self, _resource: &str, query: &Query) -> Result<Vec<String>, Failure> {
        let all = self
            .maps
            .iter()
            .filter(|((namespace, _), _)| *namespace == query.namespace);
        Ok(all.map(|(_, object)| object.clone()).collect())
    }
    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        self.get(resource, key)
    }
    fn create(&self, _: &str, _: &str, _: String) -> Result<String, Failure> {
        refused()
    }
    fn create_many(&self, _: &str, _: &str, objects: Vec<String>) -> Vec<Result<String, Failure>> {
        objects.iter().map(|_| refused()).collect()
    }
    fn update(&self, _: &str, _: &str, _: String) -> Result<String, Failure> {
        refused()
    }
    fn patch(&self, _: &str, _: &Key, _: &str, _: PatchKind, _: String) -> Result<String, Failure> {
        refused()
    }
    fn delete(&self, _: &str, _: &Key, _: &DeleteOptions) -> Result<(), Failure> {
        refused()
    }
    fn delete_many(&self, _: &str, keys: &[Key], _: &DeleteOptions) -> Vec<Result<(), Failure>> {
        keys.iter().map(|_| refused()).collect()
    }
    fn create_sub(&self, _: &str, _: &Key, _: &str, _: String) -> Result<String, Failure> {
        refused()
    }
    fn discover(&self) -> Vec<ResourceInfo> {
        Vec::new()
    }
    fn event(&self, _: &str, _: bool, _: &str, _: &str) {}
}

fn instance() -> (ControllerInstance, Arc<Maps>) {
    let engine = Engine::new(EngineConfig::default()).expect("an engine");
    let guest = hostile("misbehaving-controller").expect("there");
    let loaded = engine.load(guest.name, guest.bytes).expect("loads");
    let env = Arc::new(FixedEnv::new(7, 0));
    let entry = |name: &str| {
        (
            ("ns".to_owned(), name.to_owned()),
            format!(r#"{{"metadata":{{"name":"{name}"}}}}"#),
        )
    };
    let maps = Arc::new(Maps {
        maps: [entry("get"), entry("x")].into(),
        env: env.clone(),
        gets: AtomicU64::new(0),
    });
    let limits = Limits {
        deadline_ms: 200,
        ..Limits::default()
    };
    let mut made =
        ControllerPlugin::instantiate(&loaded, &limits, env, maps.clone()).expect("instantiates");
    made.configure("{}").expect("answers").expect("accepts");
    (made, maps)
}

#[test]
fn a_controller_describes_itself_and_reconciles() {
    let (mut controller, _) = instance();
    let about = controller.describe().expect("describes");
    assert_eq!(
        (about.name.as_str(), about.watches[0].resource.as_str()),
        ("misbehaving", "v1/configmaps")
    );
    let mut check = |namespace: &str, name: &str, expect: Result<Outcome, String>| {
        let key = Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(
            controller.reconcile(&key).expect("no trap"),
            expect,
            "{namespace}/{name}"
        );
    };
    check("ns", "anything", Ok(Outcome::Done));
    check("ns", "get", Ok(Outcome::Done));
    check("other", "get", Ok(Outcome::Requeue));
    check("ns", "list", Ok(Outcome::RequeueAfter(2)));
    check("ns", "fail", Err("told to fail".to_owned()));
    check("ns", "clock", Ok(Outcome::RequeueAfter(9)));
}

#[test]
fn a_controller_that_traps_is_replaced() {
    let (mut controller, maps) = instance();
    for (name, kind, text) in [
        ("panic", "Trap", "told to panic over ns/panic"),
        ("spin", "Deadline", "in reconcile"),
        ("forever", "Deadline", "in reconcile"),
    ] {
        let key = Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let error = controller.reconcile(&key).expect_err(name);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(matches!(
            controller.reconcile(&key),
            Err(Error::Dead { .. })
        ));
        controller = controller.respawn().expect("respawns");
    }
    assert!(maps.gets.load(Ordering::Relaxed) > 1);
}
