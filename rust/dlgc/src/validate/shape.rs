//! The shape of the native record, field by field, as `specs/dialogue.schema.json` has it.

use std::borrow::Cow;
use std::ops::Range;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, DialogueType, MESSAGE_FIELDS, Message, Role, Summary, ToolCall};
use crate::import::embedded;
use crate::json::{self, Fields, Json, Member, Node, object, string};

type Findings = Vec<Diagnostic>;

/// Names under which the dialogue itself reaches a template.
pub(crate) const RESERVED_ARGUMENTS: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

/// Members of given types; what has another type is found, and then absent.
impl<'a> Fields<'a> {
    fn string(&mut self, key: &str, findings: &mut Findings) -> Option<(Range<usize>, Cow<'a, str>)> {
        let node = self.take(key)?;
        let kind = node.kind();
        match node.value {
            Json::String(text) => Some((node.range, text)),
            _ => {
                findings.push(wrong_type(&node.range, &format!("`{key}` must be a string"), kind));
                None
            }
        }
    }

    fn object(&mut self, key: &str, findings: &mut Findings) -> Option<Node<'a>> {
        let node = self.take(key)?;
        if node.as_object().is_none() {
            findings.push(wrong_type(&node.range, &format!("`{key}` must be an object"), node.kind()));
            return None;
        }
        Some(node)
    }

    fn list_of_objects(&mut self, key: &str, findings: &mut Findings) -> Option<Node<'a>> {
        let node = self.take(key)?;
        let Some(elements) = node.as_array() else {
            findings.push(wrong_type(&node.range, &format!("`{key}` must be a list of objects"), node.kind()));
            return None;
        };
        if let Some(element) = elements.iter().find(|element| element.as_object().is_none()) {
            let message = format!("`{key}` must be a list of objects");
            findings.push(wrong_type(&element.range, &message, element.kind()));
            return None;
        }
        Some(node)
    }
}

/// The members of what must be an object.
fn fields<'a>(node: Node<'a>, what: &str) -> Result<Fields<'a>, Diagnostic> {
    if node.as_object().is_none() {
        return Err(wrong_type(&node.range, &format!("{what} must be an object"), node.kind()));
    }
    Ok(Fields::of(node))
}

fn wrong_type(range: &Range<usize>, message: &str, found: &str) -> Diagnostic {
    Diagnostic::new(Code::WrongType, message).at(range).label(format!("found {found}"))
}

/// Reads a record of the native shape; one without an id is named after its place.
pub(super) fn dialogue<'a>(
    native: Node<'a>,
    place: Cow<'a, str>,
    findings: &mut Findings,
) -> Result<Dialogue<'a>, Diagnostic> {
    let mut fields = fields(native, "a record")?;
    let list = match (fields.take("conversation"), fields.take("messages")) {
        (Some(_), Some(second)) => {
            return Err(
                Diagnostic::new(Code::WrongType, "the record has both `conversation` and `messages`").at(&second.range)
            );
        }
        (Some(list), None) | (None, Some(list)) => list,
        (None, None) => {
            return Err(Diagnostic::new(Code::EmptyDialogue, "the record has no messages"));
        }
    };
    let id = match fields.take("id") {
        Some(Node { value: Json::String(id) | Json::Number(id), .. }) => id,
        Some(node) => {
            findings.push(wrong_type(&node.range, "`id` must be a string or a number", node.kind()));
            "".into()
        }
        None => place,
    };
    let kind = fields.string("type", findings).and_then(|(range, name)| match &*name {
        "chat" => Some(DialogueType::Chat),
        "task" => Some(DialogueType::Task),
        "tool" => Some(DialogueType::Tool),
        _ => {
            let message = "`type` must be `chat`, `task` or `tool`";
            findings.push(Diagnostic::new(Code::WrongType, message).at(&range).label(format!("found `{name}`")));
            None
        }
    });
    let tools = fields.take("tools").and_then(|node| tools(node, findings));
    let documents = fields.list_of_objects("documents", findings);
    let template_kwargs = fields.object("chat_template_kwargs", findings);
    for member in template_kwargs.as_ref().and_then(Node::as_object).unwrap_or_default() {
        if RESERVED_ARGUMENTS.contains(&&*member.key) {
            let message = format!("`{}` cannot be a template argument: it comes from the dialogue", member.key);
            findings.push(Diagnostic::new(Code::WrongType, message).at(&member.key_range));
        }
    }
    let metadata = fields.object("metadata", findings);
    let group = fields.string("group", findings).map(|(_, group)| group);
    let split = fields.string("split", findings).and_then(|(range, split)| {
        if ["train", "validation", "test"].contains(&&*split) {
            return Some(split);
        }
        let message = "`split` must be `train`, `validation` or `test`";
        findings.push(Diagnostic::new(Code::WrongType, message).at(&range).label(format!("found `{split}`")));
        None
    });
    let goal = fields.take("goal");
    fields.object("output_schema", findings);
    let summaries = summaries(&mut fields, findings);
    let metadata = with_rest(metadata, fields.members);

    let range = list.range.clone();
    let found = list.kind();
    let Json::Array(elements) = list.value else {
        return Err(wrong_type(&range, "the messages must be a list", found));
    };
    if elements.is_empty() {
        return Err(Diagnostic::new(Code::EmptyDialogue, "the record has no messages").at(&range));
    }
    let mut messages = Vec::with_capacity(elements.len());
    for element in elements {
        match message(element, findings) {
            Ok(message) => messages.push(message),
            Err(diagnostic) => findings.push(diagnostic),
        }
    }
    let kind = kind.unwrap_or_else(|| infer_type(&messages, tools.as_ref()));
    Ok(Dialogue {
        id,
        kind,
        messages,
        tools,
        documents,
        template_kwargs,
        goal,
        metadata,
        group,
        split,
        summaries,
        running: None,
    })
}

fn infer_type(messages: &[Message<'_>], tools: Option<&Node<'_>>) -> DialogueType {
    if tools.is_some() || messages.iter().any(|message| message.role == Role::Tool || !message.tool_calls.is_empty()) {
        DialogueType::Tool
    } else if messages.iter().any(|message| message.state.is_some()) {
        DialogueType::Task
    } else {
        DialogueType::Chat
    }
}

/// Fields that dlgc does not know travel with the metadata.
fn with_rest<'a>(metadata: Option<Node<'a>>, rest: Vec<Member<'a>>) -> Option<Node<'a>> {
    if rest.is_empty() {
        return metadata;
    }
    let mut metadata = metadata.unwrap_or_else(|| Node::new(rest[0].node.range.clone(), Json::Object(Vec::new())));
    if let Json::Object(members) = &mut metadata.value {
        for member in rest {
            if !members.iter().any(|known| known.key == member.key) {
                members.push(member);
            }
        }
    }
    Some(metadata)
}

/// Tool schemas: a list, or one as JSON text; a bare function gets the wrapper that templates expect.
fn tools<'a>(node: Node<'a>, findings: &mut Findings) -> Option<Node<'a>> {
    let range = node.range.clone();
    let node = match &node.value {
        Json::String(text) if text.trim().is_empty() => return None,
        Json::String(_) => match embedded(&node) {
            Ok(Some(parsed)) if parsed.is_null() => return None,
            Ok(Some(parsed)) => parsed,
            Err(diagnostic) => {
                findings.push(diagnostic);
                return None;
            }
            Ok(None) => {
                findings.push(wrong_type(&range, "`tools` must be a list, or a string that holds one", "other text"));
                return None;
            }
        },
        _ => node,
    };
    let found = node.kind();
    let Json::Array(elements) = node.value else {
        findings.push(wrong_type(&range, "`tools` must be a list of objects", found));
        return None;
    };
    if elements.is_empty() {
        return None;
    }
    let mut tools = Vec::with_capacity(elements.len());
    for tool in elements {
        if tool.as_object().is_none() {
            findings.push(wrong_type(&tool.range, "`tools` must be a list of objects", tool.kind()));
            return None;
        }
        let place = tool.range.clone();
        let bare = tool.get("name").is_some() && tool.get("function").is_none() && tool.get("type").is_none();
        tools.push(if bare {
            object(&place, vec![("type", string(&place, "function")), ("function", tool)])
        } else {
            tool
        });
    }
    Some(Node::new(range, Json::Array(tools)))
}

fn summaries<'a>(fields: &mut Fields<'a>, findings: &mut Findings) -> Vec<Summary<'a>> {
    let Some(node) = fields.list_of_objects("summaries", findings) else {
        return Vec::new();
    };
    let index = |node: &Node<'_>| match &node.value {
        Json::Number(number) => {
            number.parse::<f64>().ok().filter(|index| *index >= 0.0 && index.fract() == 0.0).map(|index| index as usize)
        }
        _ => None,
    };
    let Json::Array(elements) = node.value else { return Vec::new() };
    let mut found = Vec::with_capacity(elements.len());
    for summary in elements {
        let text = summary.get("text").and_then(|text| match &text.value {
            Json::String(text) => Some(text.clone()),
            _ => None,
        });
        let upto = summary.get("upto").and_then(index);
        match (upto, text) {
            (Some(upto), Some(text)) => found.push(Summary { upto, text, range: summary.range.clone() }),
            _ => {
                let message = "a summary must have `upto`, the index of a message, and `text`, a string";
                findings.push(Diagnostic::new(Code::WrongType, message).at(&summary.range));
            }
        }
    }
    found
}

fn message<'a>(element: Node<'a>, findings: &mut Findings) -> Result<Message<'a>, Diagnostic> {
    let mut fields = fields(element, "a message")?;
    let range = fields.range.clone();
    let Some((role_range, role_name)) = fields.string("role", findings) else {
        return Err(Diagnostic::new(Code::WrongType, "the message has no `role`").at(&range));
    };
    let Some(role) = Role::ALL.into_iter().find(|role| role.name() == role_name) else {
        return Err(Diagnostic::new(Code::UnknownRole, format!("`{role_name}` is no role"))
            .at(&role_range)
            .help("roles are system, developer, user, assistant and tool; others are mapped by `[formats.NAME]` in `dlgc.toml`"));
    };
    let mut content_range = range.clone();
    let mut content = fields.take("content").and_then(|node| {
        content_range = node.range.clone();
        content(node, findings)
    });
    if let Some(result) = fields.take("result") {
        if role == Role::Tool && content.is_none() {
            content_range = result.range.clone();
            content = Some(match result.value {
                Json::String(text) => text,
                _ => json::dumps(&result).into(),
            });
        } else {
            let message = "`result` belongs to a tool message without `content`";
            findings.push(Diagnostic::new(Code::WrongType, message).at(&result.range));
        }
    }
    let reasoning = reasoning(&mut fields, findings);
    let tool_calls = tool_calls(&mut fields, findings);
    if !tool_calls.is_empty() && role != Role::Assistant {
        let message = format!("a `{}` message makes no tool calls", role.name());
        findings.push(Diagnostic::new(Code::InvalidToolCall, message).at(&range));
    }
    let name = fields.string("name", findings).map(|(_, name)| name);
    let mut call_id_range = range.clone();
    let tool_call_id = fields.string("tool_call_id", findings).map(|(place, id)| {
        call_id_range = place;
        id
    });
    let state = fields.object("state", findings);
    fields.object("annotations", findings);
    let train = train(&mut fields, findings) && role == Role::Assistant;
    expect(&mut fields, findings);
    if let Some(node) = fields.take("citations").filter(|node| node.as_array().is_none()) {
        findings.push(wrong_type(&node.range, "`citations` must be a list", node.kind()));
    }
    for member in &fields.members {
        if !MESSAGE_FIELDS.contains(&&*member.key) && !member.node.is_null() {
            findings.push(unknown_field(member));
        }
    }
    Ok(Message {
        role,
        content,
        reasoning,
        tool_calls,
        name,
        tool_call_id,
        state,
        train,
        range,
        content_range,
        call_id_range,
    })
}

/// The assistant's reasoning, under whichever of its names it has text.
fn reasoning<'a>(fields: &mut Fields<'a>, findings: &mut Findings) -> Option<Cow<'a, str>> {
    let mut found: Option<Cow<'a, str>> = None;
    for key in ["reasoning_content", "thinking", "reasoning"] {
        let Some((place, text)) = fields.string(key, findings) else { continue };
        match &found {
            Some(known) if !known.is_empty() && !text.is_empty() && *known != text => {
                let message = format!("`{key}` differs from the reasoning under another name");
                findings.push(Diagnostic::new(Code::ConflictingReasoning, message).at(&place));
            }
            Some(known) if !known.is_empty() => {}
            _ => found = Some(text),
        }
    }
    found
}

fn unknown_field(member: &Member<'_>) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::UnknownField, format!("the field `{}` is ignored", member.key));
    let diagnostic = diagnostic.at(&member.key_range);
    let near = MESSAGE_FIELDS.iter().find(|known| is_near(known, &member.key));
    match near {
        Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
        None => diagnostic,
    }
}

/// Whether two names have the same letters but for one more, one less, or their order.
fn is_near(known: &str, found: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
        letters.sort_unstable();
        letters
    };
    let (mut left, right) = (sorted(known), sorted(found));
    let total = left.len() + right.len();
    let mut common = 0;
    for letter in &right {
        if let Some(index) = left.iter().position(|other| other == letter) {
            left.swap_remove(index);
            common += 1;
        }
    }
    total - 2 * common <= 1 && found.len() > 3
}

/// Text, or a list of text parts; parts are joined as templates that take parts print them.
fn content<'a>(node: Node<'a>, findings: &mut Findings) -> Option<Cow<'a, str>> {
    let kind = node.kind();
    match node.value {
        Json::String(text) => Some(text),
        Json::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for part in parts {
                texts.push(text_part(part, findings)?);
            }
            if texts.len() == 1 { texts.pop() } else { Some(texts.concat().into()) }
        }
        _ => {
            let message = "`content` must be a string, null or a list of text parts";
            findings.push(wrong_type(&node.range, message, kind));
            None
        }
    }
}

fn text_part<'a>(part: Node<'a>, findings: &mut Findings) -> Option<Cow<'a, str>> {
    let range = part.range.clone();
    let found = part.kind();
    let mut fields = match part.value {
        Json::String(text) => return Some(text),
        Json::Object(members) => Fields { range: range.clone(), members },
        _ => {
            findings.push(wrong_type(&range, "a content part must be an object or a string", found));
            return None;
        }
    };
    let kind = fields.string("type", findings).map_or("text".into(), |(_, kind)| kind);
    if kind != "text" {
        let message = format!("content parts of type `{kind}` are not supported");
        findings.push(Diagnostic::new(Code::UnsupportedContent, message).at(&range));
        return None;
    }
    match fields.string("text", findings) {
        Some((_, text)) => Some(text),
        None => {
            findings.push(Diagnostic::new(Code::WrongType, "a text part must have `text`, a string").at(&range));
            None
        }
    }
}

fn tool_calls<'a>(fields: &mut Fields<'a>, findings: &mut Findings) -> Vec<ToolCall<'a>> {
    let mut nodes = Vec::new();
    if let Some(node) = fields.take("tool_calls") {
        let (range, found) = (node.range.clone(), node.kind());
        match node.value {
            Json::Array(calls) => nodes.extend(calls),
            _ => findings.push(wrong_type(&range, "`tool_calls` must be a list", found)),
        }
    }
    if let Some(call) = fields.take("tool_call") {
        if nodes.is_empty() {
            nodes.push(call);
        } else {
            let message = "the message has both `tool_call` and `tool_calls`";
            findings.push(Diagnostic::new(Code::InvalidToolCall, message).at(&call.range));
        }
    }
    nodes.into_iter().filter_map(|node| tool_call(node, findings)).collect()
}

fn tool_call<'a>(node: Node<'a>, findings: &mut Findings) -> Option<ToolCall<'a>> {
    let range = node.range.clone();
    let invalid = |message: &str| Diagnostic::new(Code::InvalidToolCall, message).at(&range);
    let Json::Object(members) = node.value else {
        findings.push(invalid("a tool call must be an object"));
        return None;
    };
    let mut fields = Fields { range: range.clone(), members };
    let id = fields.string("id", findings).map(|(_, id)| id);
    if let Some(function) = fields.take("function") {
        let Json::Object(members) = function.value else {
            findings.push(invalid("`function` must be an object"));
            return None;
        };
        for member in std::mem::replace(&mut fields.members, members) {
            if member.key != "type" && !member.node.is_null() {
                findings.push(unknown_field(&member));
            }
        }
    }
    let Some((_, name)) = fields.string("name", findings).filter(|(_, name)| !name.is_empty()) else {
        findings.push(invalid("the tool call has no `name`"));
        return None;
    };
    let arguments = fields.take("arguments").unwrap_or_else(|| Node::new(range.clone(), Json::Object(Vec::new())));
    if !matches!(arguments.value, Json::Object(_) | Json::String(_)) {
        let message = "`arguments` must be an object, or a string that holds one";
        findings.push(
            Diagnostic::new(Code::InvalidToolCall, message)
                .at(&arguments.range)
                .label(format!("found {}", arguments.kind())),
        );
        return None;
    }
    if arguments.as_str().is_some() {
        match embedded(&arguments) {
            Ok(Some(parsed)) if parsed.as_object().is_some() => {}
            Err(diagnostic) => findings.push(diagnostic),
            _ => findings.push(
                Diagnostic::new(Code::InvalidToolCall, "`arguments` is a string that holds no JSON object")
                    .at(&arguments.range)
                    .help("a call without arguments has `{}`"),
            ),
        }
    }
    Some(ToolCall { id, name, arguments })
}

fn train(fields: &mut Fields<'_>, findings: &mut Findings) -> bool {
    let mut train = true;
    if let Some(node) = fields.take("train") {
        match node.as_bool() {
            Some(value) => train = value,
            None => findings.push(wrong_type(&node.range, "`train` must be true or false", node.kind())),
        }
    }
    for key in ["weight", "loss_weight"] {
        let Some(node) = fields.take(key) else {
            continue;
        };
        let Json::Number(lexeme) = &node.value else {
            findings.push(wrong_type(&node.range, &format!("`{key}` must be 0 or 1"), node.kind()));
            continue;
        };
        match lexeme.parse::<f64>() {
            Ok(0.0) => train = false,
            Ok(1.0) => {}
            _ => findings
                .push(Diagnostic::new(Code::UnsupportedWeight, format!("`{key}` must be 0 or 1")).at(&node.range)),
        }
    }
    train
}

fn expect(fields: &mut Fields<'_>, findings: &mut Findings) {
    let Some((range, expect)) = fields.string("expect", findings) else {
        return;
    };
    if !["clarify", "refuse", "call", "answer"].contains(&&*expect) {
        let message = "`expect` must be `clarify`, `refuse`, `call` or `answer`";
        findings.push(Diagnostic::new(Code::WrongType, message).at(&range).label(format!("found `{expect}`")));
    }
}
