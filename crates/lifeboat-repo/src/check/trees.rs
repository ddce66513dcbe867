//! Walking the trees: first what all snapshots need together, then, if something is wrong, which of them need
//! it.
//!
//! Snapshots share most of their trees, so each tree is read once per walk, however many snapshots there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::packs::Packs;
use super::{Context, Problem};
use crate::error::RepositoryError;
use crate::id::{BlobId, PackId};
use crate::index::Index;
use crate::pack::{BlobKind, BlobOpener};
use crate::storage::FileKind;
use crate::tree::Tree;

/// What became of an attempt to read a tree.
enum Loaded {
    Tree(Tree),
    NotIndexed,
    /// The pack it lies in has a finding now.
    Damaged,
}

/// Reads trees, and turns what is wrong with their packs into findings.
struct Trees<'a> {
    context: Context<'a>,
    index: &'a Index,
    packs: &'a Packs,
    opener: BlobOpener,
    buffer: Vec<u8>,
}

impl<'a> Trees<'a> {
    fn new(
        context: Context<'a>,
        index: &'a Index,
        packs: &'a Packs,
    ) -> Result<Self, RepositoryError> {
        let opener = super::packs::opener(context)?;
        Ok(Self {
            context,
            index,
            packs,
            opener,
            buffer: Vec::new(),
        })
    }

    fn load(&mut self, id: BlobId) -> Result<Loaded, RepositoryError> {
        self.context.stop_if_interrupted()?;
        let Some(location) = self.index.get(BlobKind::Tree, &id) else {
            return Ok(Loaded::NotIndexed);
        };
        let name = location.pack.to_string();
        // A pack that is missing or cut off says so in better words than reading from it would.
        if let Some(problem) = self.packs.problem(location.pack) {
            self.context.findings.add(FileKind::Pack, &name, problem);
            return Ok(Loaded::Damaged);
        }
        let (offset, length) = (location.blob.offset.into(), location.blob.length as usize);
        let storage = self.context.repository.storage();
        if let Err(error) =
            storage.read_range_into(FileKind::Pack, &name, offset, length, &mut self.buffer)
        {
            self.context
                .findings
                .add_error(FileKind::Pack, &name, error.into())?;
            return Ok(Loaded::Damaged);
        }
        let tree = match self.opener.open(&location.blob, &mut self.buffer) {
            Ok(json) => Tree::parse(json).map_err(|error| format!("tree {}: {error}", id.short())),
            Err(error) => Err(super::packs::describe_blob(&id, &error)),
        };
        Ok(match tree {
            Ok(tree) => Loaded::Tree(tree),
            Err(what) => {
                self.context
                    .findings
                    .add(FileKind::Pack, &name, Problem::Damaged(what));
                Loaded::Damaged
            }
        })
    }
}

/// What a walk over all snapshots of the scope saw.
pub(super) struct Walked {
    /// Packs that hold what is needed.
    pub(super) packs_used: HashSet<PackId>,
    /// Whether something that is needed is in no index that could be read.
    pub(super) is_incomplete: bool,
}

/// The first walk.
pub(super) struct Walk<'a> {
    trees: Trees<'a>,
    seen: HashSet<BlobId>,
    walked: Walked,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        context: Context<'a>,
        index: &'a Index,
        packs: &'a Packs,
    ) -> Result<Self, RepositoryError> {
        let walked = Walked {
            packs_used: HashSet::new(),
            is_incomplete: false,
        };
        Ok(Self {
            trees: Trees::new(context, index, packs)?,
            seen: HashSet::new(),
            walked,
        })
    }

    /// Visits a tree and everything below it that was not visited before.
    pub(super) fn visit(&mut self, root: BlobId) -> Result<(), RepositoryError> {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            self.need(BlobKind::Tree, &id);
            if let Loaded::Tree(tree) = self.trees.load(id)? {
                for node in &tree.nodes {
                    node.content
                        .iter()
                        .for_each(|chunk| self.need(BlobKind::Data, chunk));
                    waiting.extend(node.subtree);
                }
            }
        }
        Ok(())
    }

    fn need(&mut self, kind: BlobKind, id: &BlobId) {
        match self.trees.index.get(kind, id) {
            Some(location) => {
                self.walked.packs_used.insert(location.pack);
            }
            None => self.walked.is_incomplete = true,
        }
    }

    /// The packs that hold what was visited so far.
    pub(super) fn packs_used(&self) -> &HashSet<PackId> {
        &self.walked.packs_used
    }

    pub(super) fn finish(self) -> Walked {
        self.walked
    }
}

/// What is wrong below a tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    /// Packs with a finding that something below lies in.
    pub(super) damaged_packs: BTreeSet<PackId>,
    /// Something below that is in no index, if anything is.
    pub(super) not_indexed: Option<BlobId>,
}

impl Touched {
    fn merge(&mut self, other: &Self) {
        self.damaged_packs.extend(&other.damaged_packs);
        self.not_indexed = self.not_indexed.or(other.not_indexed);
    }
}

/// The second walk, which says for each snapshot what of the findings it touches.
pub(super) struct Belongings<'a> {
    trees: Trees<'a>,
    damaged: HashSet<PackId>,
    is_incomplete: bool,
    known: HashMap<BlobId, Rc<Touched>>,
}

/// A tree whose children are still being looked at.
struct Open {
    id: BlobId,
    touched: Touched,
    children: Vec<BlobId>,
}

impl<'a> Belongings<'a> {
    pub(super) fn new(
        context: Context<'a>,
        index: &'a Index,
        packs: &'a Packs,
        is_incomplete: bool,
    ) -> Result<Self, RepositoryError> {
        let damaged = context
            .findings
            .names(FileKind::Pack)
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        Ok(Self {
            trees: Trees::new(context, index, packs)?,
            damaged,
            is_incomplete,
            known: HashMap::new(),
        })
    }

    /// What the tree `root` and everything below it touch. Each tree is read once.
    pub(super) fn of(&mut self, root: BlobId) -> Result<Rc<Touched>, RepositoryError> {
        if self.damaged.is_empty() && !self.is_incomplete {
            return Ok(Rc::default());
        }
        if let Some(known) = self.known.get(&root) {
            return Ok(Rc::clone(known));
        }
        // A stack of its own: how deep folders lie is up to whoever wrote the repository.
        let mut stack = vec![self.open(root)?];
        loop {
            let Some(top) = stack.last_mut() else {
                return Ok(Rc::default());
            };
            if let Some(child) = top.children.pop() {
                match self.known.get(&child) {
                    Some(known) => top.touched.merge(known),
                    None => stack.push(self.open(child)?),
                }
                continue;
            }
            let Some(Open { id, touched, .. }) = stack.pop() else {
                return Ok(Rc::default());
            };
            let touched = Rc::new(touched);
            self.known.insert(id, Rc::clone(&touched));
            match stack.last_mut() {
                Some(parent) => parent.touched.merge(&touched),
                None => return Ok(touched),
            }
        }
    }

    fn open(&mut self, id: BlobId) -> Result<Open, RepositoryError> {
        let mut open = Open {
            id,
            touched: Touched::default(),
            children: Vec::new(),
        };
        self.touch(&mut open.touched, BlobKind::Tree, &id);
        if let Loaded::Tree(tree) = self.trees.load(id)? {
            for node in &tree.nodes {
                node.content
                    .iter()
                    .for_each(|chunk| self.touch(&mut open.touched, BlobKind::Data, chunk));
                open.children.extend(node.subtree);
            }
        }
        Ok(open)
    }

    fn touch(&self, touched: &mut Touched, kind: BlobKind, id: &BlobId) {
        match self.trees.index.get(kind, id) {
            Some(location) if self.damaged.contains(&location.pack) => {
                touched.damaged_packs.insert(location.pack);
            }
            Some(_) => {}
            None => touched.not_indexed = touched.not_indexed.or(Some(*id)),
        }
    }
}
