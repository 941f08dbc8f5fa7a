//! `tresor cluster backup`: the state of the cluster, as it comes, into a new file.
//!
//! The file gets its name when all of it is on disk: what was cut off never looks whole, and nothing that is there is replaced.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tresor_proto::v1::BackupClusterRequest;

use crate::app::App;
use crate::args::ClusterBackupArgs;
use crate::cluster::{Cluster, ClusterError, Refusal};
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::screen::Answer;

#[derive(Serialize)]
struct BackedUp {
    cluster: String,
    file: String,
    bytes: u64,
}

/// Writes the file.
pub(super) async fn run(app: &App, args: &ClusterBackupArgs) -> Result<Answer, CliError> {
    let cluster = app.need_cluster("cluster backup")?;
    let doing = || format!("could not back up cluster {}", human::plain(cluster.name()));
    if args.file.symlink_metadata().is_ok() {
        return Err(exists(&args.file)).doing(doing);
    }
    let part = Part::create(&args.file).await.doing(doing)?;
    let (_signals, cancel) = app.signals()?;
    let written = tokio::select! {
        written = Box::pin(write(&cluster, part)) => written,
        () = cancel.cancelled() => Err(CliError::Interrupted),
    };
    let shown = BackedUp {
        cluster: cluster.name().to_owned(),
        file: args.file.display().to_string(),
        bytes: written.doing(doing)?,
    };
    Ok(app.screen.answer(&shown, || {
        format!(
            "the state of cluster {} is in {} ({})\n\
             Keep it elsewhere, and apart from it a copy of a coordinator's file cluster.key: tresor cluster restore needs both.",
            human::plain(&shown.cluster),
            human::plain(&shown.file),
            human::size(shown.bytes)
        )
    }))
}

async fn write(cluster: &Cluster, mut part: Part) -> Result<u64, CliError> {
    let mut stream = cluster.backup_cluster(BackupClusterRequest {}).await?;
    let mut bytes = 0;
    loop {
        let piece = match stream.message().await {
            Ok(Some(piece)) => piece.bytes,
            Ok(None) => break,
            // Pieces belong to one moment: another try would be of another one.
            Err(status) => return Err(ClusterError::Refused(Box::new(Refusal::from(&status))).into()),
        };
        part.file.write_all(&piece).await.map_err(part.failed("write"))?;
        bytes += piece.len() as u64;
    }
    if bytes == 0 {
        return Err(ClusterError::Answer {
            what: "the state is empty",
        }
        .into());
    }
    part.finish().await?;
    Ok(bytes)
}

/// A file that is not whole yet; removed unless it is finished.
struct Part {
    file: File,
    part: PathBuf,
    path: PathBuf,
    finished: bool,
}

fn exists(path: &Path) -> CliError {
    CliError::File {
        doing: "create",
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::AlreadyExists, "it is there already"),
    }
}

impl Part {
    async fn create(path: &Path) -> Result<Self, CliError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .await;
        Ok(Self {
            file: file.map_err(|source| CliError::File {
                doing: "create",
                path: part.clone(),
                source,
            })?,
            part,
            path: path.to_owned(),
            finished: false,
        })
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> CliError + use<> {
        let path = self.part.clone();
        move |source| CliError::File { doing, path, source }
    }

    async fn finish(mut self) -> Result<(), CliError> {
        self.file.flush().await.map_err(self.failed("write"))?;
        self.file.sync_all().await.map_err(self.failed("write"))?;
        let renamed = renameat_with(CWD, &self.part, CWD, &self.path, RenameFlags::NOREPLACE);
        renamed.map_err(|error| match error {
            rustix::io::Errno::EXIST => exists(&self.path),
            error => self.failed("write")(error.into()),
        })?;
        self.finished = true;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = async { File::open(folder).await?.sync_all().await };
        synced.await.map_err(self.failed("write"))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            // Half a state is of no use, and has secrets in it.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
