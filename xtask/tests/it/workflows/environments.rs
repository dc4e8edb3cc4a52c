//! Which environments are configured, and who is told of those that are not.

use serde_json::{Value, json};
use testbed::actions::Conclusion;

use super::runner::{PROVIDER, Runner};

/// Variables of the two environments, the accounts that are wanted, the one environment that is;
/// what is configured, and what the log says.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str], &'a [&'a str]);

#[test]
fn those_with_a_variable_are_used_and_the_others_named() {
    let plan = format!(r#"{{"provider":"{PROVIDER}","plan":"p@x"}}"#);
    let both = format!(r#"{{"provider":"{PROVIDER}","plan":"p@x","deploy":"d@x","build":null}}"#);
    let unset = "The repository variable MLFLOW_PRODUCTION is not set.";
    let cases: &[Case<'_>] = &[
        ("", "", "plan", "", &[], &["::notice title=staging is left out", unset]),
        (&plan, "", "plan", "", &["staging"], &[unset]),
        (&plan, &both, "plan", "", &["staging", "production"], &[]),
        (&plan, &both, "deploy", "", &["production"], &["MLFLOW_STAGING has no deploy."]),
        (&plan, &both, "plan deploy apply", "", &[], &["has no deploy, apply.", "has no apply."]),
        (&plan, &both, "plan", "production", &["production"], &[]),
        (&plan, "", "plan", "production", &[], &[unset]),
        ("{}", &both, "plan", "", &["production"], &["MLFLOW_STAGING has no provider, plan."]),
    ];
    for (staging, production, accounts, only, expected, said) in cases {
        let Some(mut runner) = Runner::new() else { return };
        runner.vars.insert("MLFLOW_STAGING".to_owned(), (*staging).to_owned());
        runner.vars.insert("MLFLOW_PRODUCTION".to_owned(), (*production).to_owned());
        runner.inputs.insert("accounts".to_owned(), json!(accounts));
        runner.inputs.insert("only".to_owned(), json!(only));
        let result = runner.run("environments.yml", "environments");
        let log = result.log();
        assert_eq!(result.conclusion, Conclusion::Success, "{log}");
        let configured: Vec<Value> = serde_json::from_str(&result.outputs["configured"]).expect("JSON");
        let names: Vec<_> = configured.iter().map(|one| one["environment"].as_str().expect("a name")).collect();
        assert_eq!(&names, expected, "{accounts}");
        for name in ["staging", "production"] {
            let one = configured.iter().find(|one| one["environment"] == name);
            let output = Some(&result.outputs[name]).filter(|text| !text.is_empty());
            assert_eq!(output.map(|text| serde_json::from_str(text).expect("JSON")).as_ref(), one);
        }
        for words in *said {
            assert!(log.contains(words), "{words}: {log}");
        }
        let asked = if only.is_empty() { 2 } else { 1 };
        assert_eq!(log.matches("::notice").count(), asked - expected.len(), "{log}");
    }
}

#[test]
fn a_variable_that_is_no_json_object_is_an_error() {
    for text in ["mlflow-plan@x", "[1]", "\"text\"", "{\"a\":"] {
        let Some(mut runner) = Runner::new() else { return };
        runner.vars.insert("MLFLOW_STAGING".to_owned(), text.to_owned());
        runner.inputs.insert("accounts".to_owned(), json!("plan"));
        runner.inputs.insert("only".to_owned(), json!(""));
        let result = runner.run("environments.yml", "environments");
        assert_eq!(result.conclusion, Conclusion::Failure, "{text}");
        assert!(result.log().contains("::error title=MLFLOW_STAGING::It is not a JSON object."), "{}", result.log());
    }
}
