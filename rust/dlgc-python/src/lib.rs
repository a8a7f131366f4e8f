//! `dlgc._dlgc`: each function converts, releases the interpreter, calls the core, converts back.
//!
//! Options and results cross the boundary as JSON text: one string each way, nothing to keep in step by hand.

mod error;

use std::ffi::c_long;
use std::ops::ControlFlow;
use std::path::PathBuf;

use dlgc::compile::{CompileOptions, Compiler, Monitor, Progress, RepackOptions, Target};
use dlgc::diagnostic::{Code, Diagnostic, locate};
use dlgc::dialogue::{Location, Position};
use dlgc::error::{Error, ErrorKind};
use dlgc::import::{Importers, Wanted};
use dlgc::pack::Packing;
use dlgc::source::Record;
use dlgc::window::Request;
use error::BindingError;
use libmimalloc_sys::{mi_option_set, mi_option_set_default, mi_option_t};
use pyo3::ffi::Py_AtExit;
use pyo3::prelude::*;

/// Templates make many small values; glibc's allocator took a third of the time of a compilation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Milliseconds for which the allocator keeps freed memory. It gives memory back after one second by itself, and asking
/// the system for it again took a fifth of the time of a compilation. `MIMALLOC_PURGE_DELAY` wins.
const KEPT: c_long = 10_000;
/// `mi_option_purge_delay`, for which the bindings have no name.
const PURGE_DELAY: mi_option_t = 15;

#[allow(unsafe_code, reason = "options of the allocator, and the end of the interpreter, have no safe interface")]
fn set_up_allocator() {
    // SAFETY: the option is one of the library's, a number is all that is set, and what is called at the end does no more.
    unsafe {
        mi_option_set_default(PURGE_DELAY, KEPT);
        Py_AtExit(Some(keep_memory));
    }
}

/// A process that ends gives all its memory back at once. The allocator gave back piece by piece what it kept before
/// that, which took 10 ms.
#[allow(unsafe_code, reason = "options of the allocator have no safe interface")]
extern "C" fn keep_memory() {
    // SAFETY: as above.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

/// Calls back into Python: shows progress, and lets Ctrl-C through.
struct PyMonitor {
    callback: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Monitor for PyMonitor {
    fn tick(&mut self, progress: &Progress) -> ControlFlow<()> {
        let result = Python::attach(|py| {
            py.check_signals()?;
            if let Some(callback) = &self.callback {
                let rejected = (progress.records, progress.compiled, progress.rejected);
                callback.call1(py, (progress.bytes_read, progress.bytes_total, rejected.0, rejected.1, rejected.2))?;
            }
            Ok(())
        });
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.raised = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

fn watched<T>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    run: impl FnOnce(&mut dyn Monitor) -> dlgc::error::Result<T> + Send,
) -> PyResult<T>
where
    T: Send,
{
    let mut monitor = PyMonitor { callback, raised: None };
    let result = py.detach(|| run(&mut monitor));
    match (monitor.raised, result) {
        (Some(raised), _) => Err(raised),
        (None, result) => Ok(result.map_err(BindingError::from)?),
    }
}

/// Compiles inputs into a dataset; options and report are JSON.
#[pyfunction]
#[pyo3(signature = (options, progress=None))]
fn compile(py: Python<'_>, options: &str, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let options = CompileOptions::from_json(options).map_err(BindingError::from)?;
    let report = watched(py, progress, |monitor| dlgc::compile::compile(&options, monitor))?;
    json(&report)
}

/// Takes inputs through all passes without writing anything; options and report are JSON.
#[pyfunction]
#[pyo3(signature = (options, progress=None))]
fn check(py: Python<'_>, options: &str, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let options = CompileOptions::from_json(options).map_err(BindingError::from)?;
    let report = watched(py, progress, |monitor| dlgc::compile::check(&options, monitor))?;
    json(&report)
}

/// Asks for the summaries that inputs want and the cache lacks: `ask` gets lists of at most `batch` pairs of a key and a
/// request, as JSON; options are JSON.
#[pyfunction]
#[pyo3(signature = (options, ask, batch, progress=None))]
fn ask_summaries(
    py: Python<'_>,
    options: &str,
    ask: Py<PyAny>,
    batch: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    let options = CompileOptions::from_json(options).map_err(BindingError::from)?;
    let mut raised = None;
    let mut hand_over = |waiting: &mut Vec<(String, String)>| {
        Python::attach(|py| ask.call1(py, (std::mem::take(waiting),))).map(drop).map_err(|error| {
            raised = Some(error);
            Error::new(ErrorKind::Interrupted, "the callable that writes summaries failed")
        })
    };
    let asked = watched(py, progress, |monitor| {
        let mut waiting = Vec::new();
        let mut each = |request: Request| {
            waiting.push((request.key, request.text));
            if waiting.len() < batch { Ok(()) } else { hand_over(&mut waiting) }
        };
        dlgc::compile::wanted_summaries(&options, &mut each, monitor)?;
        if waiting.is_empty() { Ok(()) } else { hand_over(&mut waiting) }
    });
    raised.map_or(asked, Err)
}

/// Converts inputs into one file of JSON lines; options and report are JSON.
#[pyfunction]
#[pyo3(signature = (options, to, preferences, progress=None))]
fn convert(
    py: Python<'_>,
    options: &str,
    to: &str,
    preferences: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = CompileOptions::from_json(options).map_err(BindingError::from)?;
    let to = Target::parse(to).map_err(BindingError::from)?;
    let wanted = if preferences { Wanted::Pairs } else { Wanted::Dialogues };
    json(&watched(py, progress, |monitor| dlgc::compile::convert(&options, to, wanted, monitor))?)
}

/// Names of the formats that are read, in the order in which they are tried.
#[pyfunction]
fn formats() -> Vec<String> {
    Importers::default().names().map(str::to_owned).collect()
}

/// Checks a dataset from itself; the verdict is JSON.
#[pyfunction]
fn verify(py: Python<'_>, folder: PathBuf) -> PyResult<String> {
    json(&py.detach(|| dlgc::verify::verify(&folder)).map_err(BindingError::from)?)
}

/// Compiles the sources of a dataset again and compares; the result is JSON.
#[pyfunction]
#[pyo3(signature = (folder, sources, scratch, progress=None))]
fn confirm(
    py: Python<'_>,
    folder: PathBuf,
    sources: Vec<String>,
    scratch: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    json(&watched(py, progress, |monitor| dlgc::verify::confirm(&folder, &sources, &scratch, monitor))?)
}

/// Packs the examples of a dataset into rows of another composition; options and the new manifest are JSON.
#[pyfunction]
fn repack(py: Python<'_>, options: &str) -> PyResult<String> {
    let options = RepackOptions::from_json(options).map_err(BindingError::from)?;
    json(&watched(py, None, |monitor| dlgc::compile::repack(&options, monitor))?)
}

/// The rows that a method of packing makes of examples of so many tokens, each as indices of these.
#[pyfunction]
fn pack_lengths(packing: &str, lengths: Vec<u64>, max_length: u64) -> Result<Vec<Vec<usize>>, BindingError> {
    Ok(dlgc::pack::pack_lengths(Packing::parse(packing)?, &lengths, max_length)?)
}

/// Compares a tokenizer's way from text to ids with the reference's; the verdict is JSON.
#[pyfunction]
fn verify_tokenizer(py: Python<'_>, tokenizer: &str, strings: usize, whole: bool) -> PyResult<String> {
    json(&py.detach(|| dlgc::verify::tokenizer(tokenizer, strings, whole)).map_err(BindingError::from)?)
}

/// Compares a dataset's tokenizer and template with others; the result is JSON.
#[pyfunction]
#[pyo3(signature = (folder, tokenizer=None, chat_template=None))]
fn drift(py: Python<'_>, folder: PathBuf, tokenizer: Option<&str>, chat_template: Option<&str>) -> PyResult<String> {
    json(&py.detach(|| dlgc::verify::drift(&folder, tokenizer, chat_template)).map_err(BindingError::from)?)
}

/// Renders records with one template and tokenizer.
#[pyclass(frozen, module = "dlgc._dlgc")]
struct Renderer {
    compiler: Compiler,
    options: CompileOptions,
}

#[pymethods]
impl Renderer {
    #[new]
    fn new(py: Python<'_>, options: &str) -> Result<Self, BindingError> {
        let options = CompileOptions::from_json(options)?;
        let mut compiler = py.detach(|| Compiler::load(&options))?;
        compiler.ask();
        Ok(Self { compiler, options })
    }

    /// A record, as JSON text, with everything that became of its first dialogue, as JSON.
    fn render(&self, py: Python<'_>, record: &[u8]) -> Result<String, BindingError> {
        let location = Location::new("<record>", Position::Line(1));
        Ok(py.detach(|| self.shown(&Record { location, bytes: record }, 1))?)
    }

    /// What a server shows of a record before its last message, if the answer may have so many tokens, as JSON.
    fn window(&self, py: Python<'_>, record: &[u8], room: u64) -> Result<String, BindingError> {
        let record = Record { location: Location::new("<history>", Position::Line(1)), bytes: record };
        Ok(py.detach(|| {
            let (mut value, diagnostics) = match self.compiler.serve(&record, room)? {
                Ok(served) => (served.to_json(), Vec::new()),
                Err(diagnostics) => (serde_json::json!({"text": null}), diagnostics),
            };
            value["diagnostics"] = located(&diagnostics, &record);
            Ok::<_, dlgc::error::Error>(value.to_string())
        })?)
    }

    /// The record with this number in a file, with everything that became of one of its dialogues, as JSON.
    #[pyo3(signature = (path, number, dialogue=1))]
    fn render_file(&self, py: Python<'_>, path: &str, number: u64, dialogue: usize) -> Result<String, BindingError> {
        Ok(py.detach(|| {
            let (location, bytes) = dlgc::compile::find_record(&self.options, path, number)?;
            self.shown(&Record { location, bytes: &bytes }, dialogue)
        })?)
    }
}

impl Renderer {
    fn shown(&self, record: &Record<'_>, dialogue: usize) -> dlgc::error::Result<String> {
        let (mut value, diagnostics) = match self.compiler.show(record, dialogue)? {
            Ok(shown) => (shown.to_json(), shown.diagnostics),
            Err(diagnostics) => (serde_json::json!({"text": null}), diagnostics),
        };
        value["format"] = self.compiler.format(record).as_deref().into();
        value["record"] = String::from_utf8_lossy(record.bytes).into();
        value["diagnostics"] = located(&diagnostics, record);
        Ok(value.to_string())
    }
}

fn located(diagnostics: &[Diagnostic], record: &Record<'_>) -> serde_json::Value {
    let located = |diagnostic: &Diagnostic| locate(diagnostic, &record.location, record.bytes);
    let located: Vec<_> = diagnostics.iter().map(located).collect();
    serde_json::to_value(located).expect("diagnostics are JSON")
}

/// The catalogue of diagnostics as Markdown, or the entry of one code.
#[pyfunction]
#[pyo3(signature = (code=None))]
fn explain(code: Option<&str>) -> Option<String> {
    match code {
        None => Some(Code::markdown()),
        Some(name) => Code::explain(name).map(|entry| {
            let severity = entry.severity.name();
            format!(
                "{severity}[{}]: {}\n\nWhy it matters: {}\nExample: {}\nWhat to do: {}\n",
                entry.name, entry.meaning, entry.why, entry.example, entry.remedy
            )
        }),
    }
}

fn json(value: &impl serde::Serialize) -> PyResult<String> {
    Ok(serde_json::to_string(value).map_err(|error| BindingError::internal(&error))?)
}

/// The native module.
#[pymodule(gil_used = false)]
fn _dlgc(module: &Bound<'_, PyModule>) -> PyResult<()> {
    set_up_allocator();
    module.add("__version__", dlgc::VERSION)?;
    module.add("OPTIMISED", !cfg!(debug_assertions))?;
    module.add("PROFILED", option_env!("DLGC_PROFILED").is_some())?;
    module.add_class::<Renderer>()?;
    module.add_function(wrap_pyfunction!(compile, module)?)?;
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(ask_summaries, module)?)?;
    module.add_function(wrap_pyfunction!(convert, module)?)?;
    module.add_function(wrap_pyfunction!(formats, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)?;
    module.add_function(wrap_pyfunction!(verify_tokenizer, module)?)?;
    module.add_function(wrap_pyfunction!(confirm, module)?)?;
    module.add_function(wrap_pyfunction!(repack, module)?)?;
    module.add_function(wrap_pyfunction!(pack_lengths, module)?)?;
    module.add_function(wrap_pyfunction!(drift, module)?)?;
    module.add_function(wrap_pyfunction!(explain, module)?)
}
