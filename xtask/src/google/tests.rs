//! The client against a fake Google.

use std::time::Duration;

use serde_json::json;
use testbed::google::{Fault, Google as Fake, Options, Project, Rule};
use tokio_util::sync::CancellationToken;

use crate::commands::Run;
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::ui::Ui;

use super::token::Login;
use super::{Ask, Google, Repeat, Service, keys};

const ACCOUNT: &str = "server@testbed-project.iam.gserviceaccount.com";

/// A client of a fake Google.
pub fn client(fake: &Fake) -> (Run, Google) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let run = Run { ui: Ui::silent(), cancel: CancellationToken::new(), offline: false };
    let overrides = fake.gcloud_env().into_iter().filter(|(name, _)| name.contains("_OVERRIDES_")).collect();
    let google = Google::at(&run, Login::given(Secret::new("a token of the test")), overrides).unwrap();
    (run, google)
}

/// A fake Google with a service account, and a client of it.
async fn world() -> (Fake, Google) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let enabled = ["cloudresourcemanager", "iam", "storage"].map(|name| format!("{name}.googleapis.com"));
    let project = Project { enabled: enabled.into(), ..Project::default() };
    // It has a runtime of its own.
    let options = Options { projects: vec![project], ..Options::default() };
    let fake = tokio::task::block_in_place(|| Fake::start(options));
    let (_, google) = client(&fake);
    let body = json!({ "accountId": "server", "serviceAccount": {} });
    let ask = Ask::post(
        Service::Iam,
        "v1/projects/testbed-project/serviceAccounts",
        &body,
        Repeat::Refused,
        "make an account",
    );
    google.ask(&ask).await.unwrap().unwrap();
    (fake, google)
}

/// Makes the next calls to keys fail.
fn fail(fake: &Fake, method: &str, times: u32, fault: Fault) {
    fake.clear_faults();
    fake.clear_log();
    fake.fail(&Rule {
        service: "iam".to_owned(),
        method: method.to_owned(),
        path: "/keys".to_owned(),
        skip: 0,
        times,
        fault,
    });
}

fn text(error: &Error) -> String {
    format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_asked_again_until_it_is_answered() {
    let (fake, google) = world().await;
    let faults = [Fault::RateLimited, Fault::Status(500), Fault::Status(503), Fault::Closed, Fault::AnswerLost];
    for fault in faults {
        fail(&fake, "GET", 1, fault.clone());
        assert_eq!(keys::list(&google, ACCOUNT).await.unwrap(), [""; 0], "{fault:?}");
        assert_eq!(fake.log().len(), 2, "{fault:?}");
    }
    fail(&fake, "GET", 99, Fault::Status(503));
    let error = keys::list(&google.clone().hurried(Duration::from_secs(1)), ACCOUNT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Remote, "{}", text(&error));
    for (fault, kind) in [(Fault::PermissionDenied, Kind::Forbidden), (Fault::Status(401), Kind::Auth)] {
        fail(&fake, "GET", 99, fault.clone());
        let error = keys::list(&google, ACCOUNT).await.unwrap_err();
        assert_eq!((error.kind(), fake.log().len()), (kind, 1), "{fault:?}: {}", text(&error));
    }
    fake.clear_faults();
    let absent = Ask::get(Service::Storage, "b/nobody-has-this", "read a bucket");
    assert_eq!(google.ask(&absent).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_once() {
    let (fake, google) = world().await;
    // A server that limits its rate has not made a key.
    fail(&fake, "POST", 1, Fault::RateLimited);
    let key = keys::create(&google, ACCOUNT).await.unwrap();
    assert_eq!(keys::list(&google, ACCOUNT).await.unwrap(), std::slice::from_ref(&key.id));
    assert!(key.json.expose().contains("private_key") && !format!("{key:?}").contains("BEGIN"));

    // One whose answer is lost may have: it is not asked again, and the key can be tidied away.
    for fault in [Fault::AnswerLost, Fault::Status(503)] {
        fail(&fake, "POST", 99, fault.clone());
        let error = keys::create(&google, ACCOUNT).await.unwrap_err();
        assert_eq!((error.kind(), fake.log().len()), (Kind::Remote, 1), "{fault:?}: {}", text(&error));
        assert!(text(&error).contains("keys list --iam-account=server@"), "{}", text(&error));
    }
    fake.clear_faults();
    let lost: Vec<String> =
        keys::list(&google, ACCOUNT).await.unwrap().into_iter().filter(|found| *found != key.id).collect();
    assert_eq!(lost.len(), 1, "of the two, one had its effect");
    assert!(keys::delete(&google, ACCOUNT, &lost[0]).await.unwrap());
    assert!(!keys::delete(&google, ACCOUNT, &lost[0]).await.unwrap(), "it is gone");
    assert_eq!(keys::list(&google, ACCOUNT).await.unwrap(), [key.id]);

    fail(&fake, "POST", 99, Fault::Policy("iam.disableServiceAccountKeyCreation".to_owned()));
    let error = keys::create(&google, ACCOUNT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = text(&error);
    assert!(text.contains("iam.disableServiceAccountKeyCreation") && text.contains("do without keys"), "{text}");
    fake.clear_faults();
    let error = keys::create(&google, "nobody@testbed-project.iam.gserviceaccount.com").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}
