//! What the bench answers: ratios first, then every figure.

use std::collections::BTreeMap;
use std::io;

use mlflow_image::{Digest, Platform};

use super::{Case, Contender};
use crate::report::{self, Report};

/// The contract of `bench image --json`.
#[derive(serde::Serialize)]
pub struct Answer {
    /// The platform of the images.
    pub platform: Platform,
    /// CPUs that this machine has.
    pub cpus: usize,
    /// How often each case was run.
    pub runs: usize,
    /// Ours beside the best peer, by case.
    pub ratios: Vec<Ratio>,
    /// What this project promises.
    pub bars: Vec<Bar>,
    /// One entry a contender and case.
    pub figures: Vec<Figure>,
    /// Whether two builds from nothing gave one digest.
    pub reproducible: BTreeMap<Contender, bool>,
    /// Who could not take part.
    pub left_out: Vec<LeftOut>,
}

/// Ours beside the quickest peer.
#[derive(serde::Serialize)]
pub struct Ratio {
    case: Case,
    peer: Contender,
    /// Our wall time by the peer's.
    seconds: f64,
    /// Our CPU time by the peer's, where it is known.
    cpu_seconds: Option<f64>,
    /// Our bytes pushed by the peer's; `None` where the peer pushed none.
    pushed_bytes: Option<f64>,
}

/// A promise and what was measured.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Bar {
    what: &'static str,
    limit: f64,
    measured: f64,
    /// Whether it was kept.
    pub met: bool,
}

/// A contender in a case, over all runs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    /// What was built.
    pub case: Case,
    /// By whom.
    pub contender: Contender,
    /// Wall time of build and push: the median.
    pub seconds: f64,
    /// User and system time: the median. `None` where a daemon does the work.
    pub cpu_seconds: Option<f64>,
    /// The push's part of the wall time, where it is a command of its own: the median.
    pub push_seconds: Option<f64>,
    /// Bytes of request bodies that reached the registry: the most of all runs.
    pub pushed_bytes: u64,
    /// Bytes of wheels and packages downloaded, where the builder tells.
    pub downloaded_bytes: Option<u64>,
    /// Compressed bytes of config and layers.
    pub size: u64,
    /// Layers of the image.
    pub layers: usize,
    /// How many of them the registry had before this case.
    pub layers_kept: usize,
    /// The digest that the tag had after each run.
    pub digests: Vec<Digest>,
    /// The wall time of each run.
    pub all_seconds: Vec<f64>,
    /// The CPU time of each run.
    pub all_cpu_seconds: Vec<f64>,
}

/// A contender that could not take part.
#[derive(Debug, serde::Serialize)]
pub struct LeftOut {
    /// Who.
    pub contender: Contender,
    /// Why.
    pub why: String,
}

/// The middle one, or the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Ours by the quickest peer's, for each case that both ran.
pub fn ratios(figures: &[Figure]) -> Vec<Ratio> {
    let ours = figures.iter().filter(|figure| figure.contender == Contender::Native);
    ours.filter_map(|ours| {
        let peers = figures.iter().filter(|one| one.case == ours.case && one.contender != Contender::Native);
        let best = peers.min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
        let cpu_seconds = ours.cpu_seconds.zip(best.cpu_seconds).map(|(ours, best)| ours / best);
        let pushed_bytes = (best.pushed_bytes > 0).then(|| ours.pushed_bytes as f64 / best.pushed_bytes as f64);
        Some(Ratio {
            case: ours.case,
            peer: best.contender,
            seconds: ours.seconds / best.seconds,
            cpu_seconds,
            pushed_bytes,
        })
    })
    .collect()
}

/// The promises, for the cases that were run.
pub fn bars(figures: &[Figure], ratios: &[Ratio]) -> Vec<Bar> {
    let bar = |what, limit: f64, measured: f64| Bar { what, limit, measured, met: measured <= limit };
    let mut bars = Vec::new();
    if let Some(ratio) = ratios.iter().find(|ratio| ratio.case == Case::Cold) {
        bars.push(bar("cold: wall time by the best peer's", 1.0 / 3.0, ratio.seconds));
    }
    for ours in figures.iter().filter(|figure| figure.contender == Contender::Native) {
        let downloaded = ours.downloaded_bytes.unwrap_or(0) as f64;
        let (seconds, pushed) = (ours.seconds, ours.pushed_bytes as f64);
        bars.extend(match ours.case {
            Case::Cold | Case::OwnFile => vec![],
            Case::Unchanged => vec![
                bar("nothing changed: seconds", 0.3, seconds),
                bar("nothing changed: bytes pushed", 0.0, pushed),
                bar("nothing changed: bytes downloaded", 0.0, downloaded),
            ],
            Case::InRegistry => vec![
                bar("empty cache, image in the registry: seconds", 1.0, seconds),
                bar("empty cache, image in the registry: bytes downloaded", 0.0, downloaded),
            ],
            Case::Dependency => vec![
                bar("one dependency changed: seconds", 3.0, seconds),
                bar("one dependency changed: bytes pushed", 2e6, pushed),
                bar("one dependency changed: layers pushed", 2.0, (ours.layers - ours.layers_kept) as f64),
            ],
        });
    }
    bars
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        if !self.ratios.is_empty() {
            writeln!(out, "{:<38} {:>7} {:>7} {:>8}", "native by the quickest peer", "wall", "CPU", "pushed")?;
            for ratio in &self.ratios {
                let percent =
                    |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.1}%", value * 100.0));
                let (wall, cpu) = (percent(Some(ratio.seconds)), percent(ratio.cpu_seconds));
                let pushed = percent(ratio.pushed_bytes);
                let (case, peer) = (ratio.case.title(), ratio.peer.title());
                writeln!(out, "{case:<38} {wall:>7} {cpu:>7} {pushed:>8}  ({peer})")?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "{:<38} {:<17} {:>8} {:>8} {:>9} {:>9} {:>12}",
            "build + push", "by", "wall s", "CPU s", "pushed", "size", "layers kept"
        )?;
        for figure in &self.figures {
            let cpu = figure.cpu_seconds.map_or("-".to_owned(), |value| format!("{value:.2}"));
            writeln!(
                out,
                "{:<38} {:<17} {:>8.2} {:>8} {:>9} {:>9} {:>12}",
                figure.case.title(),
                figure.contender.title(),
                figure.seconds,
                cpu,
                report::bytes(figure.pushed_bytes),
                report::bytes(figure.size),
                format!("{} of {}", figure.layers_kept, figure.layers),
            )?;
        }
        writeln!(out)?;
        for (contender, same) in &self.reproducible {
            let verdict = if *same { "one digest" } else { "two digests" };
            writeln!(out, "two builds from nothing: {verdict}  ({})", contender.title())?;
        }
        for bar in &self.bars {
            let verdict = if bar.met { "kept  " } else { "MISSED" };
            writeln!(out, "{verdict} {}: {:.3}, at most {:.3}", bar.what, bar.measured, bar.limit)?;
        }
        for LeftOut { contender, why } in &self.left_out {
            writeln!(out, "left out: {}: {why}", contender.title())?;
        }
        writeln!(out, "{}, {} CPUs, {} runs, medians", self.platform, self.cpus, self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(case: Case, contender: Contender, seconds: f64, pushed_bytes: u64) -> Figure {
        Figure {
            case,
            contender,
            seconds,
            cpu_seconds: (contender != Contender::Docker).then_some(seconds),
            push_seconds: None,
            pushed_bytes,
            downloaded_bytes: (contender == Contender::Native).then_some(0),
            size: 1,
            layers: 30,
            layers_kept: 28,
            digests: Vec::new(),
            all_seconds: vec![seconds],
            all_cpu_seconds: vec![seconds],
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in
            [(&[3.0][..], 3.0), (&[1.0, 3.0], 2.0), (&[9.0, 1.0, 2.0], 2.0), (&[1.0, 2.0, 4.0, 9.0], 3.0)]
        {
            assert_eq!(median(values), expected);
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ours_is_held_against_the_quickest_peer() {
        let figures = [
            figure(Case::Cold, Contender::Native, 10.0, 100),
            figure(Case::Cold, Contender::Buildah, 50.0, 200),
            figure(Case::Cold, Contender::Docker, 20.0, 0),
            figure(Case::Unchanged, Contender::Native, 0.1, 0),
            figure(Case::OwnFile, Contender::Buildah, 5.0, 0),
        ];
        let ratios = ratios(&figures);
        assert_eq!(ratios.len(), 1);
        assert_eq!((ratios[0].peer, ratios[0].seconds), (Contender::Docker, 0.5));
        assert_eq!((ratios[0].cpu_seconds, ratios[0].pushed_bytes), (None, None));
    }

    #[test]
    fn a_promise_is_kept_or_missed() {
        let check = |case, seconds, pushed, expected: &[bool]| {
            let figures = [figure(case, Contender::Native, seconds, pushed), figure(case, Contender::Buildah, 30.0, 9)];
            let found: Vec<bool> = bars(&figures, &ratios(&figures)).iter().map(|bar| bar.met).collect();
            assert_eq!(found, expected, "{case:?} {seconds} {pushed}");
        };
        check(Case::Cold, 9.9, 100, &[true]);
        check(Case::Cold, 10.1, 100, &[false]);
        check(Case::Unchanged, 0.3, 0, &[true, true, true]);
        check(Case::Unchanged, 0.31, 1, &[false, false, true]);
        check(Case::InRegistry, 1.1, 0, &[false, true]);
        check(Case::Dependency, 2.9, 2_000_001, &[true, false, true]);
        check(Case::OwnFile, 99.0, 99, &[]);
    }
}
