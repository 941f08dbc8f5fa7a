//! Images of formats other than raw, read through a `qemu-nbd` of our own.
//!
//! Before QEMU opens anything, every file of the image is opened, asked for writers and remembered, and what it refers to is checked: a header is foreign
//! text, and `backing file: /etc/shadow` must not end up in a backup.

use std::collections::HashSet;
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::BytesMut;
use rustix::fs::{Advice, FileType, Mode, OFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

use super::header::{self, Backing, HeaderError};
use super::raw::check_size;
use super::steady::Watched;
use super::{DiskFormat, DiskSource, Extent, SourceDescription, SourceError, SourceKind, SourceSpec, Steadiness};
use crate::blocking::blocking;
use crate::extent;
use crate::nbd::NbdError;
use crate::qemu::{Access, Node, QemuExport};

/// Images below one another.
const CHAIN_MAX: usize = 64;
/// Places at which an image is asked whether it is cached.
const CACHE_SAMPLES: u64 = 64;

/// An image behind a server of our own.
#[derive(Debug)]
pub struct ImageSource {
    export: QemuExport,
    files: std::sync::Arc<Vec<Watched>>,
    size: u64,
    /// Extents that the image itself tells, where QEMU does not.
    told: Option<Vec<Extent>>,
    description: SourceDescription,
}

/// An image as it will be opened, and all its files.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) node: Node,
    pub(crate) files: Vec<Watched>,
}

impl ImageSource {
    /// Opens it.
    ///
    /// # Errors
    /// `Missing`, `Denied`, `NotADisk`, `Empty`, `TooLarge`, `Malformed`, `Unsupported`, `Qemu`; `Reference` if it refers to what it may not; `InUse` unless live
    /// sources are allowed.
    pub async fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let asked = spec.clone();
        let (chain, access) = blocking(move || {
            let chain = examine(&asked.path, asked.format(), asked.allow_live, asked.allow_backing)?;
            let access = if reads_past_cache(&chain.files) {
                Access::ReadDirect
            } else {
                Access::Read
            };
            Ok::<_, SourceError>((chain, access))
        })
        .await?;
        let failed = |source| SourceError::Qemu {
            path: spec.path.clone(),
            source,
        };
        let export = QemuExport::open(&chain.node, access).await.map_err(failed)?;
        let size = export.client.size();
        check_size(&spec.path, size)?;
        let kind = if chain.node.is_device {
            SourceKind::BlockDevice
        } else {
            SourceKind::File
        };
        let description = SourceDescription {
            kind,
            format: spec.format(),
            path: spec.path.clone(),
        };
        let files = std::sync::Arc::new(chain.files);
        let (first, path, format) = (std::sync::Arc::clone(&files), spec.path.clone(), spec.format());
        let told = blocking(move || {
            // The images of one chain are of formats that QEMU tells of.
            header::allocated(&first[0].file, size, format).map_err(|error| named_error(&path, format, error))
        });
        let told = told.await?;
        Ok(Self {
            export,
            files,
            size,
            told,
            description,
        })
    }

    async fn failed(&self, error: NbdError) -> SourceError {
        SourceError::Qemu {
            path: self.description.path.clone(),
            source: self.export.explain(error).await,
        }
    }
}

#[async_trait]
impl DiskSource for ImageSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn description(&self) -> &SourceDescription {
        &self.description
    }

    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        if let Some(told) = &self.told {
            let within = extent::normalise(vec![within.clip(Extent::new(0, self.size))]);
            let start = told.partition_point(|e| within.first().is_some_and(|w| e.end() <= w.offset));
            return Ok(extent::intersect(&told[start..], &within));
        }
        match self.export.client.allocated(within).await {
            Ok(set) => Ok(set),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SourceError> {
        let (length, size) = (buffer.len() as u64, self.size);
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(SourceError::Range { offset, length, size });
        }
        match self.export.client.read(offset, buffer).await {
            Ok(buffer) => Ok(buffer),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn finish(&self) -> Result<Steadiness, SourceError> {
        let files = std::sync::Arc::clone(&self.files);
        blocking(move || {
            for file in files.iter() {
                let steadiness = file.steadiness()?;
                if steadiness != Steadiness::Steady {
                    return Ok(steadiness);
                }
            }
            Ok(Steadiness::Steady)
        })
        .await
    }
}

/// Opens all files of an image and checks what they refer to.
///
/// # Errors
/// As for [`ImageSource::open`].
pub(crate) fn examine(
    path: &Path,
    format: DiskFormat,
    allow_live: bool,
    allow_backing: bool,
) -> Result<Chain, SourceError> {
    let failed = |source| SourceError::from_io("open", path, source);
    let top = std::path::absolute(path).map_err(failed)?;
    let folder = top.parent().unwrap_or(Path::new("/")).canonicalize().map_err(failed)?;
    let rules = Rules { folder, allow_backing };

    let mut files: Vec<Watched> = Vec::new();
    let mut seen = HashSet::new();
    let mut layers: Vec<(PathBuf, DiskFormat, bool)> = Vec::new();
    let mut next = Some((top, format, String::new()));
    while let Some((path, format, named)) = next.take() {
        let refused = |why| SourceError::Reference {
            path: path.clone(),
            refers_to: named.clone(),
            why,
            permissible: false,
        };
        if layers.len() == CHAIN_MAX {
            return Err(refused("too many images stand on one another"));
        }
        let file = Watched::open(&path, allow_live)?;
        if !seen.insert(file.identity()) {
            return Err(refused("the images go round in a circle"));
        }
        let facts =
            header::examine(&file.file, file.size, format).map_err(|error| named_error(&path, format, error))?;
        let is_device = file.kind == FileType::BlockDevice;
        files.push(file);
        for name in &facts.extents {
            files.push(Watched::open(&rules.resolve(&path, name)?, allow_live)?);
        }
        if let Some(backing) = facts.backing {
            let format = backing_format(&path, &backing)?;
            next = Some((rules.resolve(&path, &backing.name)?, format, backing.name));
        }
        layers.push((path, format, is_device));
    }

    let node = layers.into_iter().rev().fold(None, |below, (path, format, is_device)| {
        Some(Node {
            path,
            format,
            is_device,
            backing: below.map(Box::new),
        })
    });
    Ok(Chain {
        node: node.expect("the image itself is a layer"),
        files,
    })
}

fn named_error(path: &Path, format: DiskFormat, error: HeaderError) -> SourceError {
    match error {
        HeaderError::Malformed(why) => SourceError::Malformed {
            path: path.to_owned(),
            format: format.name(),
            why: why.to_owned(),
        },
        HeaderError::Unsupported(why) => SourceError::Unsupported {
            path: path.to_owned(),
            why: why.to_owned(),
        },
        HeaderError::Io(error) => SourceError::from_io("read", path, error),
    }
}

fn backing_format(path: &Path, backing: &Backing) -> Result<DiskFormat, SourceError> {
    let refused = |why| SourceError::Reference {
        path: path.to_owned(),
        refers_to: backing.name.clone(),
        why,
        permissible: false,
    };
    match backing.format.as_deref() {
        // To guess it would be to believe a guest.
        None => Err(refused("its format is not declared (qemu-img rebase -u -F sets it)")),
        Some(name) => DiskFormat::ALL
            .into_iter()
            .find(|format| format.qemu_name() == name)
            .ok_or_else(|| refused("it is of a format that is not read")),
    }
}

/// Which files an image may refer to.
struct Rules {
    /// Canonical folder of the image itself.
    folder: PathBuf,
    allow_backing: bool,
}

impl Rules {
    /// The file that `name` means in the image at `path`, as QEMU sees it.
    fn resolve(&self, path: &Path, name: &str) -> Result<PathBuf, SourceError> {
        let refused = |why, permissible| SourceError::Reference {
            path: path.to_owned(),
            refers_to: name.to_owned(),
            why,
            permissible,
        };
        // QEMU takes everything before a colon for a protocol, unless a slash comes first.
        if name
            .find(':')
            .is_some_and(|colon| name.find('/').is_none_or(|slash| colon < slash))
        {
            return Err(refused("only files are followed", false));
        }
        let file = path.parent().unwrap_or(Path::new("/")).join(name);
        let real = file
            .canonicalize()
            .map_err(|source| SourceError::from_io("open", &file, source))?;
        if !self.allow_backing && !real.starts_with(&self.folder) {
            return Err(refused("it is outside the image's folder", true));
        }
        Ok(file)
    }
}

/// Whether to read past the page cache. An image that is mostly cached is read from there, which is quicker and changes little; any other one would
/// push the guests' working set out.
fn reads_past_cache(files: &[Watched]) -> bool {
    let direct = files.iter().all(|file| {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&file.path, flags, Mode::empty()).is_ok()
    });
    direct && !files.iter().all(is_cached)
}

/// Asks at some places whether the file is cached. Brings in no more than those pages.
fn is_cached(watched: &Watched) -> bool {
    let file = &watched.file;
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
    let (mut asked, mut cached) = (0, 0);
    for sample in 0..CACHE_SAMPLES {
        let place = u128::from(watched.size) * u128::from(sample) / u128::from(CACHE_SAMPLES);
        let Ok(place) = rustix::fs::seek(file, SeekFrom::Data(place as u64)) else {
            continue;
        };
        asked += 1;
        let mut byte = [0];
        let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], place, ReadWriteFlags::NOWAIT);
        cached += u64::from(read.is_ok());
    }
    cached * 4 >= asked * 3
}
