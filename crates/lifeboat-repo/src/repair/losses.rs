//! What snapshots have lost, by name.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::view::{Trees, View, found_in};
use super::{OpenSource, stop_if};
use crate::error::RepositoryError;
use crate::id::BlobId;
use crate::pack::BlobKind;
use crate::snapshot::Snapshot;

/// A file or a folder in a snapshot that is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPath {
    /// Where it is in the snapshot; empty for all of it.
    pub path: String,
    /// Of a file, its chunks that are lost; `None` for a folder whose list of files is lost, and with it all that
    /// is in it.
    pub chunks_lost: Option<u64>,
    /// Of a file, all its chunks.
    pub chunks: u64,
}

/// A snapshot that is not whole, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What it lacks, in the order of the paths; not empty.
    pub paths: Vec<LostPath>,
}

/// What each of these snapshots lacks, if it lacks anything.
pub(super) fn find(
    view: &View<'_>,
    snapshots: &[Snapshot],
    sources: &[OpenSource<'_>],
    interrupt: &AtomicBool,
) -> Result<Vec<Loss>, RepositoryError> {
    let mut search = Search {
        view,
        sources,
        interrupt,
        trees: Trees::new(view, sources)?,
        known: HashMap::new(),
    };
    let mut losses = Vec::new();
    for snapshot in snapshots {
        if !search.lacks(snapshot.tree)? {
            continue;
        }
        let paths = search.name(snapshot.tree)?;
        let snapshot = snapshot.clone();
        losses.push(Loss { snapshot, paths });
    }
    Ok(losses)
}

struct Search<'a> {
    view: &'a View<'a>,
    sources: &'a [OpenSource<'a>],
    interrupt: &'a AtomicBool,
    trees: Trees<'a>,
    /// Whether a tree, or anything below it, lacks something.
    known: HashMap<BlobId, bool>,
}

/// A tree whose children are still being looked at.
struct Open {
    id: BlobId,
    lacks: bool,
    children: Vec<BlobId>,
}

impl Search<'_> {
    fn is_lost(&self, kind: BlobKind, id: &BlobId) -> bool {
        !self.view.has(kind, id) && found_in(self.sources, kind, id).is_none()
    }

    /// Whether anything below `root` is lost. Each tree is read once, however many snapshots share it.
    fn lacks(&mut self, root: BlobId) -> Result<bool, RepositoryError> {
        if let Some(known) = self.known.get(&root) {
            return Ok(*known);
        }
        // A stack of its own: how deep folders lie is up to whoever wrote the repository.
        let mut stack = vec![self.open(root)?];
        while let Some(top) = stack.last_mut() {
            if let Some(child) = top.children.pop() {
                match self.known.get(&child) {
                    Some(lacks) => top.lacks |= lacks,
                    None => stack.push(self.open(child)?),
                }
                continue;
            }
            let Some(Open { id, lacks, .. }) = stack.pop() else {
                break;
            };
            self.known.insert(id, lacks);
            if let Some(parent) = stack.last_mut() {
                parent.lacks |= lacks;
            }
        }
        Ok(self.known.get(&root).copied().unwrap_or(false))
    }

    fn open(&mut self, id: BlobId) -> Result<Open, RepositoryError> {
        stop_if(self.interrupt)?;
        let mut open = Open {
            id,
            lacks: false,
            children: Vec::new(),
        };
        match self.trees.load(&id)? {
            None => open.lacks = true,
            Some(tree) => {
                for node in tree.nodes {
                    let mut content = node.content.iter();
                    open.lacks |= content.any(|chunk| self.is_lost(BlobKind::Data, chunk));
                    open.children.extend(node.subtree);
                }
            }
        }
        Ok(open)
    }

    /// The paths below `root` that lack something.
    fn name(&mut self, root: BlobId) -> Result<Vec<LostPath>, RepositoryError> {
        let mut paths = Vec::new();
        let mut waiting = vec![(String::new(), root)];
        while let Some((folder, id)) = waiting.pop() {
            stop_if(self.interrupt)?;
            let Some(tree) = self.trees.load(&id)? else {
                paths.push(LostPath {
                    path: folder,
                    chunks_lost: None,
                    chunks: 0,
                });
                continue;
            };
            for node in tree.nodes {
                let path = match folder.as_str() {
                    "" => node.name,
                    folder => format!("{folder}/{}", node.name),
                };
                let content = node.content.iter();
                let lost = content.filter(|chunk| self.is_lost(BlobKind::Data, chunk));
                let lost = lost.count() as u64;
                if lost > 0 {
                    paths.push(LostPath {
                        path: path.clone(),
                        chunks_lost: Some(lost),
                        chunks: node.content.len() as u64,
                    });
                }
                let below = node
                    .subtree
                    .filter(|tree| self.known.get(tree) == Some(&true));
                waiting.extend(below.map(|tree| (path, tree)));
            }
        }
        paths.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(paths)
    }
}
