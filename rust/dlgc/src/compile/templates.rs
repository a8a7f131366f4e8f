//! The chat templates of a run: the one that the options name, or those of the tokenizer between which transformers
//! chooses (`get_chat_template`): `tool_use` for a dialogue with tools, if there is one, else `default`.

use std::path::Path;

use super::options::CompileOptions;
use crate::dialogue::Dialogue;
use crate::error::{Error, ErrorKind, Result};
use crate::template::{Template, TemplateOptions};
use crate::tokenize::TokenizerFiles;

/// The name of the template for dialogues with tools.
const TOOL_USE: &str = "tool_use";

/// The chat templates of a run.
pub struct Templates {
    default: Template,
    tool_use: Option<Template>,
}

impl Templates {
    /// Loads what the options name, else the tokenizer's own, and leaves in `files` what is used.
    ///
    /// # Errors
    /// [`ErrorKind::Template`] where there is none, or one cannot be read; [`ErrorKind::Io`].
    pub(super) fn load(
        options: &CompileOptions,
        files: &mut TokenizerFiles,
        template_options: &TemplateOptions,
    ) -> Result<Self> {
        let mut known = files.chat_templates();
        let (default, tool_use) = match options.chat_template.as_deref() {
            Some(name) => (known.remove(name).map_or_else(|| named(options, name), Ok)?, None),
            None => {
                let default = known.remove("default").ok_or_else(|| missing(files, known.keys()))?;
                let tool_use = known.remove(TOOL_USE).filter(|source| *source != default);
                (default, tool_use)
            }
        };
        files.set_chat_templates(&default, tool_use.as_deref().map(|source| (TOOL_USE, source)));
        let load_tool_use = |source: &String| {
            Template::load(source, template_options).map_err(|error| error.context("in the template `tool_use`"))
        };
        Ok(Self {
            default: Template::load(&default, template_options)?,
            tool_use: tool_use.as_ref().map(load_tool_use).transpose()?,
        })
    }

    /// The template of a dialogue.
    pub fn of(&self, dialogue: &Dialogue<'_>) -> &Template {
        self.tool_use.as_ref().filter(|_| dialogue.tools.is_some()).unwrap_or(&self.default)
    }

    /// Each template, with the name of its digest in the manifest.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        let tool_use = self.tool_use.iter().map(|template| ("template_tool_use", template));
        std::iter::once(("template", &self.default)).chain(tool_use)
    }

    /// Texts that may end an assistant turn.
    pub fn stops(&self) -> Vec<String> {
        let mut stops = self.default.stops().to_vec();
        let others = self.tool_use.iter().flat_map(Template::stops);
        for stop in others {
            if !stops.contains(stop) {
                stops.push(stop.clone());
            }
        }
        stops
    }
}

/// A template that is a file: in the folder of templates, or anywhere.
fn named(options: &CompileOptions, name: &str) -> Result<String> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| Error::io(path, error));
    if let Some(folder) = &options.template_path {
        for candidate in [folder.join(name), folder.join(format!("{name}.jinja"))] {
            if candidate.is_file() {
                return read(&candidate);
            }
        }
    }
    let path = Path::new(name);
    if path.is_file() {
        return read(path);
    }
    let message = format!("`{name}` is neither a file nor the name of a template of the tokenizer");
    Err(Error::new(ErrorKind::Template, message)
        .hint("`--template-path DIR` adds a folder in which templates are found by name"))
}

fn missing<'n>(files: &TokenizerFiles, known: impl Iterator<Item = &'n String>) -> Error {
    let names: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    let error = |message: String| Error::new(ErrorKind::Template, message);
    if names.is_empty() {
        return error(format!("the tokenizer `{}` has no chat template", files.origin))
            .hint("give one with `--chat-template FILE`");
    }
    error(format!("none of the chat templates of `{}` is the default: {}", files.origin, names.join(", ")))
        .hint("name one with `--chat-template NAME`")
}
