//! The one table from the core's errors to Python's exceptions.

use dlgc::error::{Error, ErrorKind};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

/// An error on its way to Python.
pub(crate) enum BindingError {
    Core(Error),
    Internal(String),
}

impl BindingError {
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<Error> for BindingError {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<BindingError> for PyErr {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Core(error) => Python::attach(|py| raise(py, &error).unwrap_or_else(|failed| failed)),
            BindingError::Internal(message) => PyRuntimeError::new_err(message),
        }
    }
}

fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = match error.kind() {
        ErrorKind::Options => "OptionsError",
        ErrorKind::Template => "TemplateError",
        ErrorKind::Tokenizer => "TokenizerError",
        ErrorKind::Shard => "ShardError",
        // Python picks FileNotFoundError, PermissionError and so on by the number.
        ErrorKind::Io => return Ok(os_error(error)),
        _ => "DlgcError",
    };
    let class = py.import("dlgc.exceptions")?.getattr(class)?;
    Ok(PyErr::from_value(class.call1((error.to_string(),))?))
}

fn os_error(error: &Error) -> PyErr {
    let path = error.path().map(|path| path.to_string_lossy().into_owned());
    let number = error.os_error().or(match error.io_kind() {
        Some(std::io::ErrorKind::NotFound) => Some(2),
        Some(std::io::ErrorKind::PermissionDenied) => Some(13),
        _ => None,
    });
    match number {
        Some(number) => PyOSError::new_err((number, error.to_string(), path)),
        None => PyOSError::new_err(error.to_string()),
    }
}
