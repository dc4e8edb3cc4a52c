//! `logs`: what the server printed.

mod local;

use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::cluster::logs::{self, Line, Wanted};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};
use crate::report::Report;

/// Print the server's log
///
/// In a cluster: that of all its containers in all its pods, each line with the end of its pod's name
/// and its container's.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// How many of the last lines, of each container.
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
    /// Go on with what is printed from now on, until Ctrl-C; also by pods that start later.
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What only a cluster has.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "In a cluster")]
struct ClusterArgs {
    /// Of this container only.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// What containers printed before their last restart.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Nothing older than this: 90s, 15m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    match config.environment()? {
        Environment::Local(_) => match args.cluster.given() {
            Some(flag) => {
                Err(Error::new(Kind::Usage, format!("{flag} is for a cluster, and environment {} is none", args.env))
                    .hint(format!("leave {flag} out, or name another environment with --env")))
            }
            None => local::run(&args, run).await,
        },
        Environment::Cluster(cluster) => in_cluster(&args, run, cluster).await,
    }
}

async fn in_cluster(args: &Args, run: &Run, config: &ClusterConfig) -> Result<ExitCode> {
    let cluster = Cluster::connect(config).await?;
    let ClusterArgs { container, previous, since } = args.cluster.clone();
    let wanted = Wanted { container, previous, lines: args.lines, since };
    let lines = tokio::select! {
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
        lines = logs::last(&cluster, &wanted) => lines?,
    };
    let answer = Answer { lines };
    let code = run.answer(&answer)?;
    if args.follow {
        // A reader that has gone has seen enough.
        logs::follow(run, &cluster, &wanted, &answer.lines, |line| run.ui.result(line).is_ok()).await?;
    }
    Ok(code)
}

impl ClusterArgs {
    /// The first flag that was given.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--container", self.container.is_some()),
            ("--previous", self.previous),
            ("--since", self.since.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

/// A number with the unit s, m, h or d.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write it as 90s, 15m, 2h or 1d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[derive(serde::Serialize)]
struct Answer {
    lines: Vec<Line>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        self.lines.iter().try_for_each(|line| line.human(out))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_duration_has_a_unit() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("2h", Some(7_200)),
            ("1d", Some(86_400)),
            ("90", None),
            ("0s", None),
            ("-1s", None),
            ("1.5h", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
            ("s", None),
            ("", None),
            ("5ü", None),
        ] {
            assert_eq!(super::duration(text).ok().map(|found| found.as_secs()), expected, "{text}");
        }
    }
}
