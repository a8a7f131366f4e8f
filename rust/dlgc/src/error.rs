//! Errors of the run: a file, an option, a template, a tokenizer, the disk.
//!
//! What is wrong with the *data* is a [`crate::diagnostic::Diagnostic`], a value that is collected. An [`Error`]
//! stops the run; it says what was expected and found, carries the chain of what was being done, and may hold a hint.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What kind of thing went wrong; decides the Python exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option or a combination of options.
    Options,
    /// The chat template.
    Template,
    /// The tokenizer or its configuration.
    Tokenizer,
    /// A dataset folder that is not one, or not whole.
    Shard,
    /// A file or folder; [`Error::io_kind`] says what the system said.
    Io,
    /// The caller asked to stop.
    Interrupted,
}

/// Why the run stopped.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    hint: Option<String>,
    path: Option<PathBuf>,
    source: Option<io::Error>,
}

/// What fallible functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message in lower case and without a full stop.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner { kind, message: message.into(), context: Vec::new(), hint: None, path: None, source: None };
        Self { inner: Box::new(inner) }
    }

    /// What the system said about a file.
    #[cold]
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        let said = source.to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        let mut error = Self::new(ErrorKind::Io, format!("`{}`: {said}", path.display()));
        error.inner.path = Some(path);
        error.inner.source = Some(source);
        error
    }

    /// Adds what was being done, outermost last.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.inner.context.push(doing.into());
        self
    }

    /// Adds what the user may do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The file it is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// What the system said, where it did.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.inner.source.as_ref().map(io::Error::kind)
    }

    /// The system's error number, where there is one.
    pub fn os_error(&self) -> Option<i32> {
        self.inner.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.inner.context.iter().rev() {
            write!(formatter, "{doing}: ")?;
        }
        write!(formatter, "{}", self.inner.message)?;
        if let Some(hint) = &self.inner.hint {
            write!(formatter, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| source as _)
    }
}
