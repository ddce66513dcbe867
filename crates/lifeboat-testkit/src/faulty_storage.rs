//! A storage that fails on purpose.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_repo::storage::{FileEntry, FileKind, Storage, StorageError, StorageErrorKind};

/// Which calls a [`Fault`] counts and strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Everything that reaches the storage.
    All,
    /// Writes and deletes alone.
    Changes,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing happens, the error comes back, and later calls work again.
    Refused,
    /// The operation takes effect, yet an error comes back: an answer lost on the way.
    AnswerLost,
    /// Nothing happens, and nothing ever does again: the process was killed, or the disk is gone.
    Dead,
}

/// One planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What is counted.
    pub calls: Calls,
    /// How many counted calls pass before the one that fails.
    pub after: usize,
    /// How it fails.
    pub failure: Failure,
    /// What the error says it is.
    pub kind: StorageErrorKind,
}

/// What somebody else does to the storage at a chosen moment.
type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    meanwhile: Option<(FileKind, usize, Meanwhile)>,
    all: usize,
    changes: usize,
    struck: bool,
    dead: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// Passes calls on to another storage, counts them, and makes one fail. Clones share the plan.
#[derive(Debug, Clone)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

impl FaultyStorage {
    /// Wraps `inner`; nothing fails yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// Plans a failure, counting from now; what was planned or broken before is over.
    pub fn plan(&self, fault: Fault) {
        *self.state() = State {
            fault: Some(fault),
            ..State::default()
        };
    }

    /// Has `act` done once, right before the file of this kind is written that comes after `after` others: what
    /// somebody else does while the caller sleeps between a decision and the deed. Whoever acts does so on the
    /// storage within.
    pub fn meanwhile(&self, kind: FileKind, after: usize, act: impl FnOnce() + Send + 'static) {
        self.state().meanwhile = Some((kind, after, Box::new(act)));
    }

    fn let_others_act(&self, kind: FileKind) {
        let mut state = self.state();
        let act = match &mut state.meanwhile {
            Some((of, 0, _)) if *of == kind => state.meanwhile.take(),
            Some((of, after, _)) if *of == kind => {
                *after -= 1;
                None
            }
            _ => None,
        };
        drop(state);
        if let Some((_, _, act)) = act {
            act();
        }
    }

    /// Forgets the plan and the counts: from now on every call passes.
    pub fn heal(&self) {
        *self.state() = State::default();
    }

    /// Calls of a sort since the last plan.
    #[must_use]
    pub fn count(&self, calls: Calls) -> usize {
        let state = self.state();
        match calls {
            Calls::All => state.all,
            Calls::Changes => state.changes,
        }
    }

    /// Whether the planned failure has happened.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.state().struck
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and says how it fails, if it does.
    fn next(&self, is_change: bool) -> Option<(Failure, StorageErrorKind)> {
        let mut state = self.state();
        let fault = state.fault;
        let counted = match fault.map(|fault| fault.calls) {
            Some(Calls::Changes) => is_change.then_some(state.changes),
            _ => Some(state.all),
        };
        state.all += 1;
        state.changes += usize::from(is_change);
        let fault = fault?;
        if state.dead {
            return Some((Failure::Dead, fault.kind));
        }
        if state.struck || counted != Some(fault.after) {
            return None;
        }
        state.struck = true;
        state.dead = fault.failure == Failure::Dead;
        Some((fault.failure, fault.kind))
    }

    fn call<T>(
        &self,
        action: &'static str,
        file: (FileKind, &str),
        is_change: bool,
        operation: impl FnOnce(&dyn Storage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let Some((failure, kind)) = self.next(is_change) else {
            return operation(&*self.inner);
        };
        if failure == Failure::AnswerLost {
            // What the answer would have been is what gets lost.
            let _ = operation(&*self.inner);
        }
        let file = format!("{} {}", file.0, file.1);
        Err(StorageError::new(
            kind,
            action,
            file,
            self.inner.location(),
            "a planned failure",
        ))
    }
}

impl Storage for FaultyStorage {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<FileEntry>, StorageError> {
        self.call("list", (kind, "files"), false, |inner| inner.list(kind))
    }

    fn size(&self, kind: FileKind, name: &str) -> Result<u64, StorageError> {
        self.call("read", (kind, name), false, |inner| inner.size(kind, name))
    }

    fn read(&self, kind: FileKind, name: &str) -> Result<Vec<u8>, StorageError> {
        self.call("read", (kind, name), false, |inner| inner.read(kind, name))
    }

    fn read_range(
        &self,
        kind: FileKind,
        name: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, StorageError> {
        self.call("read", (kind, name), false, |inner| {
            inner.read_range(kind, name, offset, length)
        })
    }

    fn write(&self, kind: FileKind, name: &str, content: &[u8]) -> Result<(), StorageError> {
        self.let_others_act(kind);
        self.call("write", (kind, name), true, |inner| {
            inner.write(kind, name, content)
        })
    }

    fn delete(&self, kind: FileKind, name: &str) -> Result<(), StorageError> {
        self.call("delete", (kind, name), true, |inner| {
            inner.delete(kind, name)
        })
    }

    fn create(&self) -> Result<(), StorageError> {
        self.call("create", (FileKind::Config, "folder"), true, |inner| {
            inner.create()
        })
    }

    fn free_space_bytes(&self) -> Option<u64> {
        self.inner.free_space_bytes()
    }

    fn may_delete(&self) -> bool {
        self.inner.may_delete()
    }

    fn requests_at_once(&self) -> usize {
        self.inner.requests_at_once()
    }

    fn sweep(&self) -> Result<usize, StorageError> {
        self.call("sweep", (FileKind::Config, "folder"), true, |inner| {
            inner.sweep()
        })
    }
}
