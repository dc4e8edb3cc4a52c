//! The runner itself, on workflows made up for it.

use serde_json::json;

use super::shim::{Says, built_cargo, calls, scripted, watched};
use super::{Action, Conclusion, Context, JobResult, Result, job, matrix};
use crate::Home;

const HEAD: &str = "name: made up\non:\n  push:\nenv:\n  WORKFLOW: w\n  BOTH: workflow\n";

/// Runs the job `it`, whose lines are indented by two.
fn run(body: &str, change: impl FnOnce(&mut Context<'_>)) -> Result<JobResult> {
    let home = Home::new();
    let file = home.file("checkout/.github/workflows/made-up.yml");
    std::fs::write(&file, format!("{HEAD}jobs:\n  it:\n{body}")).expect("a workflow");
    let mut context = Context::new(&home, &home.path().join("checkout"));
    change(&mut context);
    job(&file, "it", &context)
}

fn done(body: &str) -> JobResult {
    run(body, |_| ()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn steps_pass_on_outputs_variables_and_a_summary() {
    let result = done(
        r##"
    env:
      BOTH: job
    outputs:
      all: ${{ steps.first.outputs.text }}-${{ steps.first.outputs.one }}
    steps:
      - id: first
        env:
          STEP: s ${{ env.WORKFLOW }} ${{ github.repository }}
        run: |
          { echo one=1; printf 'text<<E\na\nb\nE\n'; } >> "$GITHUB_OUTPUT"
          echo "LATER=$BOTH" >> "$GITHUB_ENV"
          echo "$PWD/bin" >> "$GITHUB_PATH"
          echo "# $STEP" >> "$GITHUB_STEP_SUMMARY"
          touch "$RUNNER_TEMP/kept"
      - name: second
        run: |
          echo "$LATER ${STEP-unset} ${PATH%%:*} $GITHUB_ACTIONS $GITHUB_SHA"
          test -e "$RUNNER_TEMP/kept" && [ "$PWD" = "$GITHUB_WORKSPACE" ] && [ "$HOME" != "$PWD" ]
"##,
    );
    assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
    assert_eq!(result.outputs["all"], "a\nb-1");
    assert_eq!(result.summary, "# s w owner/repository\n");
    let log = &result.step("second").log;
    assert!(log.starts_with("job unset /") && log.contains("checkout/bin true da39a3ee"), "{log}");
}

#[test]
fn a_failure_stops_what_did_not_ask_for_it() {
    let result = done(
        "    steps:\n      - {name: a, id: a, run: exit 3}\n      - {name: b, run: echo b}\n\
         \x20     - {name: c, if: failure(), run: echo c}\n\
         \x20     - {name: d, if: always(), run: \"echo ${{ steps.a.outcome }}\"}\n",
    );
    let seen: Vec<_> = result.steps.iter().map(|step| (step.name.as_str(), step.conclusion)).collect();
    let (failed, ran, skipped) = (Conclusion::Failure, Conclusion::Success, Conclusion::Skipped);
    assert_eq!(seen, [("a", failed), ("b", skipped), ("c", ran), ("d", ran)]);
    assert_eq!((result.conclusion, result.step("a").code), (failed, Some(3)));
    assert_eq!(result.step("d").log, "failure\n");
}

#[test]
fn only_a_named_bash_minds_pipes() {
    for (shell, conclusion) in [("", Conclusion::Success), (", shell: bash", Conclusion::Failure)] {
        let result = done(&format!("    steps:\n      - {{run: \"false | true\"{shell}}}\n"));
        assert_eq!(result.conclusion, conclusion, "{shell}");
    }
}

#[test]
fn nothing_of_the_developer_reaches_a_step() {
    let result = done("    steps:\n      - {name: env, run: env}\n");
    let home = std::env::var("HOME").expect("a home");
    assert!(!result.step("env").log.contains(&format!("HOME={home}\n")), "{}", result.log());
    assert!(!result.step("env").log.contains("CARGO_"), "{}", result.log());
}

#[test]
fn what_is_not_known_is_refused() {
    for (body, says) in [
        ("    steps:\n      - {run: \"${{ vars.A }}\"}\n", "there is no vars.A"),
        ("    steps:\n      - {run: \"${{ secrets.A }}\"}\n", "there is no secrets.A"),
        ("    steps:\n      - {run: \"${{ matrix.a }}\"}\n", "there is no matrix here"),
        ("    steps:\n      - {uses: some/action@1}\n", "nobody said what some/action would do"),
        ("    steps:\n      - {uses: ./action}\n", "action.yml"),
        ("    steps:\n      - {run: a, shell: python}\n", "the shell python"),
        ("    steps:\n      - {run: a, continue-on-error: true}\n", "continue-on-error"),
        ("    steps:\n      - {name: neither}\n", "one of run and uses"),
        ("    container: debian\n    steps: []\n", "container"),
        ("    needs: other\n    steps: []\n", "it needs the result of other"),
        ("    outputs: {a: \"${{ steps.b.outputs.c }}\"}\n    steps: []\n", "there is no steps.b"),
        ("    steps:\n      - {run: \"echo x >> $GITHUB_OUTPUT\"}\n", "neither NAME=VALUE"),
        ("    concurrency: {group: \"${{ inputs.a }}\", cancel-in-progress: false}\n    steps: []\n", "inputs.a"),
    ] {
        let said = run(body, |_| ()).expect_err(body).to_string();
        assert!(said.contains(says), "{body}: {said}");
    }
}

#[test]
fn actions_are_looked_up_or_run_when_they_are_ours() {
    let body = "    steps:\n      - {name: ours, uses: ./action, with: {name: \"${{ github.actor }}\"}}\n\
                \x20     - {name: after, run: \"echo $LEFT\"}\n";
    let action = "name: ours\ndescription: d\ninputs:\n  name: {description: d}\n  more: {description: d, default: m}\n\
                  runs:\n  using: composite\n  steps:\n\
                  \x20   - {name: inner, shell: bash, env: {N: \"${{ inputs.name }}\"}, run: \"echo $N ${{ inputs.more }}\"}\n\
                  \x20   - {name: other, uses: \"some/action@1\", with: {a: \"${{ inputs.more }}\"}}\n";
    let result = run(body, |context| {
        std::fs::write(context.home.file("checkout/action/action.yml"), action).expect("an action");
        let left = Action { env: [("LEFT".to_owned(), "left".to_owned())].into(), ..Action::default() };
        context.actions.insert("some/action".to_owned(), left);
    });
    let result = result.expect("a run");
    assert_eq!(result.step("inner").log, "someone m\n");
    assert_eq!(result.step("other").with["a"], "m");
    assert_eq!(result.step("after").log, "left\n");
    let said = run(&body.replace("name: \"", "nome: \""), |context| {
        std::fs::write(context.home.file("checkout/action/action.yml"), action).expect("an action");
    });
    assert!(said.expect_err("an unknown input").to_string().contains("there is no input nome"));
}

#[test]
fn jobs_see_what_they_need_and_their_part_of_the_matrix() {
    let body = "    needs: [a]\n    if: needs.a.outputs.list != '[]'\n\
                \x20   strategy:\n      matrix:\n        include: ${{ fromJSON(needs.a.outputs.list) }}\n\
                \x20   environment: ${{ matrix.name }}\n    steps:\n      - {name: say, run: \"echo ${{ matrix.name }}\"}\n";
    let home = Home::new();
    let file = home.file("checkout/made-up.yml");
    std::fs::write(&file, format!("{HEAD}jobs:\n  it:\n{body}")).expect("a workflow");
    let mut context = Context::new(&home, &home.path().join("checkout"));
    let mut before = done("    steps: []\n");
    before.outputs.insert("list".to_owned(), r#"[{"name":"x"},{"name":"y"}]"#.to_owned());
    context.needs.insert("a".to_owned(), before.clone());
    let combinations = matrix(&file, "it", &context).expect("a matrix");
    assert_eq!(json!(combinations), json!([{ "name": "x" }, { "name": "y" }]));
    for combination in combinations {
        context.matrix = combination;
        let result = job(&file, "it", &context).expect("a run");
        let name = result.environment.clone().expect("an environment");
        assert_eq!(result.step("say").log, format!("{name}\n"));
    }
    // What it does not need is nothing to it, and nothing that it could see.
    context.needs.insert("b".to_owned(), JobResult { conclusion: Conclusion::Failure, ..before.clone() });
    assert_eq!(job(&file, "it", &context).expect("a run").conclusion, Conclusion::Success);
    before.outputs.insert("list".to_owned(), "[]".to_owned());
    context.needs.insert("a".to_owned(), before.clone());
    assert_eq!(job(&file, "it", &context).expect("a run").conclusion, Conclusion::Skipped);
    before.conclusion = Conclusion::Failure;
    context.needs.insert("a".to_owned(), before);
    assert_eq!(job(&file, "it", &context).expect("a run").conclusion, Conclusion::Skipped);
}

#[test]
fn a_called_workflow_gives_its_outputs() {
    let called = "name: called\non:\n  workflow_call:\n    inputs:\n      a: {type: string, required: true}\n\
                  \x20     b: {type: string, default: d}\n    outputs:\n      x: {value: \"${{ jobs.one.outputs.x }}\"}\n\
                  jobs:\n  one:\n    outputs: {x: \"${{ steps.s.outputs.x }}\"}\n    steps:\n\
                  \x20     - {id: s, run: \"echo 'x=${{ inputs.a }} ${{ inputs.b }}' >> $GITHUB_OUTPUT\"}\n";
    let call = |with: &str| {
        run(&format!("    uses: ./called.yml\n    with: {{{with}}}\n"), |context| {
            std::fs::write(context.home.file("checkout/called.yml"), called).expect("a workflow");
        })
    };
    assert_eq!(call("a: \"${{ github.actor }}\"").expect("a run").outputs["x"], "someone d");
    assert!(call("b: x").expect_err("a lack").to_string().contains("the input a is missing"));
    assert!(call("a: x, c: x").expect_err("too much").to_string().contains("there is no input c"));
}

#[test]
fn programs_at_the_head_of_the_path() {
    let home = Home::new();
    let dir = home.path().join("bin");
    std::fs::create_dir_all(&dir).expect("a folder");
    let says = |to, text, code| Says { to, text, code };
    scripted(&dir, "tool", &[says("a 'b", "it's\n", 3), says("c * d", "x", 0)]);
    let run = |args: &[&str]| crate::command(dir.join("tool")).args(args).output().expect("it starts");
    let output = run(&["a", "'b"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"it's\n"[..]));
    assert_eq!(run(&["c", "y", "d"]).status.code(), Some(0));
    assert_eq!(run(&["other"]).status.code(), Some(99));
    assert_eq!(calls(&dir, "tool"), ["a 'b", "c y d", "other"]);

    watched(&dir, "tool", "/bin/echo".as_ref());
    assert_eq!(run(&["d", "e  f"]).stdout, b"d e  f\n");
    assert_eq!(calls(&dir, "tool"), ["d e  f"]);

    built_cargo(&dir, "/bin/echo".as_ref());
    let cargo = |args: &[&str]| crate::command(dir.join("cargo")).args(args).output().expect("it starts");
    assert_eq!(cargo(&["xtask", "a", "b c"]).stdout, b"a b c\n");
    assert_eq!(cargo(&["build"]).status.code(), Some(101));
}
