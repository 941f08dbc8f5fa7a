//! `tresor explain`.

use serde::Serialize;
use tresor_proto::v1::ExplainRequest;

use crate::app::App;
use crate::args::ExplainArgs;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;
use crate::verb::point::named_point;

#[derive(Serialize)]
struct Explained {
    what: String,
    because: Vec<String>,
}

/// Asks the cluster why.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, args: ExplainArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("explain")?;
    let ExplainArgs { kind, name } = args;
    let doing = || format!("could not explain {kind} {name}");
    let asked = match kind.as_str() {
        "point" => named_point(app, &cluster, &name).await.doing(doing)?,
        _ => name.clone(),
    };
    let request = ExplainRequest {
        kind: kind.clone(),
        name: asked,
    };
    let explained = cluster.explain(request).await.doing(doing)?;
    let shown = Explained {
        what: explained.what,
        because: explained.because,
    };
    Ok(app.screen.answer(&shown, || text(&shown)))
}

fn text(shown: &Explained) -> String {
    let mut text = human::plain(&shown.what);
    for sentence in &shown.because {
        text.push_str(&format!("\n- {}", human::plain(sentence)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_explanation() {
        let shown = Explained {
            what: String::from("job 812, backup of web-03, waits"),
            because: vec![
                String::from("Only workers on kvm-7 reach its disks."),
                String::from("The worker there is drained since 2026-03-10T12:00:00Z."),
            ],
        };
        insta::assert_snapshot!(text(&shown), @"
        job 812, backup of web-03, waits
        - Only workers on kvm-7 reach its disks.
        - The worker there is drained since 2026-03-10T12:00:00Z.
        ");
    }
}
