//! Names, and what can be called: macros, the functions of the environment.

use std::borrow::Cow;
use std::rc::Rc;

use super::value::{Function, Value};
use super::{Arguments, Done, Machine, refuse};
use crate::json::Member;
use crate::template::SAYS;
use crate::template::program::{Argument, Macro, Name};

impl<'a> Machine<'a> {
    pub(super) fn lookup(&mut self, name: Name) -> Value<'a> {
        let mut frame = self.frame;
        loop {
            let found = &self.frames[frame];
            if let Some((_, value)) = found.variables.iter().find(|(known, _)| *known == name) {
                if let Some(lesson) = &mut self.lesson {
                    lesson.reads_name(name);
                }
                if let Some(watch) = self.watch.as_mut().filter(|watch| frame >= watch.frame) {
                    watch.looked = true;
                }
                return value.clone();
            }
            if frame == 0 {
                break;
            }
            frame = found.parent;
        }
        self.global(name)
    }

    pub(super) fn global(&mut self, name: Name) -> Value<'a> {
        let stage = self.stage;
        let text = self.program.names[name as usize].as_str();
        match text {
            "messages" => return Value::Messages(0),
            "tools" => return stage.tools.map_or(Value::None, Value::of),
            "documents" => return stage.documents.map_or(Value::None, Value::of),
            "add_generation_prompt" => {
                self.asks();
                self.asked();
                return Value::Bool(self.add_generation_prompt);
            }
            _ => {}
        }
        let member = |members: &'a [Member<'a>]| members.iter().find(|member| member.key == text);
        if let Some(found) = member(stage.arguments).or_else(|| member(stage.defaults)) {
            return Value::of(&found.node);
        }
        if let Some((_, found)) = stage.tokens.iter().find(|(known, _)| known == text) {
            return Value::from(found.as_str());
        }
        match text {
            "raise_exception" => Value::Function(Function::Raise),
            "strftime_now" => Value::Function(Function::Now),
            "namespace" => Value::Function(Function::Namespace),
            "range" => Value::Function(Function::Range),
            "dict" => Value::Function(Function::Dict),
            _ => Value::Undefined,
        }
    }

    pub(super) fn arguments(&mut self, arguments: &'a [Argument]) -> Done<Arguments<'a>> {
        let mut found = Arguments::default();
        for argument in arguments {
            match argument {
                Argument::Positional(value) => {
                    let value = self.evaluate(value)?;
                    found.positional.push(value);
                }
                Argument::Named(name, value) => {
                    let value = self.evaluate(value)?;
                    found.named.push((name, value));
                }
                Argument::Spread(value) => {
                    let value = self.evaluate(value)?;
                    found.positional.extend(self.iterate(&value)?);
                }
                Argument::SpreadNamed(value) => {
                    let Value::Object(members) = self.evaluate(value)? else {
                        return refuse("`**` takes an object of the record");
                    };
                    found.named.extend(members.iter().map(|member| (&*member.key, Value::of(&member.node))));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn call(
        &mut self,
        callee: Value<'a>,
        arguments: Arguments<'a>,
        caller: Option<(usize, usize)>,
    ) -> Done<Value<'a>> {
        match callee {
            Value::Macro(number, frame) => self.call_macro(number, frame, arguments, caller),
            Value::Method(method) => self.call_method(&method.0, method.1, arguments),
            Value::Function(function) => self.call_function(function, arguments),
            Value::Loop(turn) => {
                let items = arguments.positional.into_iter().next().unwrap_or(Value::Undefined);
                self.loop_again(&turn, items)
            }
            Value::Undefined => refuse("something undefined is called"),
            other => refuse(format!("'{}' object is not callable", other.kind())),
        }
    }

    pub(super) fn call_macro(
        &mut self,
        number: usize,
        frame: usize,
        arguments: Arguments<'a>,
        caller: Option<(usize, usize)>,
    ) -> Done<Value<'a>> {
        let program = self.program;
        let called: &'a Macro = &program.macros[number];
        let outer_frame = std::mem::replace(&mut self.frame, frame.min(self.frames.len() - 1));
        let outer_text = std::mem::take(&mut self.out);
        let printed = self.prints_apart();
        self.push();
        self.inner += 1;
        self.callers.push(caller);
        let ran = self.deeper(|machine| {
            machine.bind(called, arguments)?;
            machine.block(&called.body, &[])
        });
        self.callers.pop();
        self.inner -= 1;
        self.pop();
        self.frame = outer_frame;
        let text = std::mem::replace(&mut self.out, outer_text);
        let text = self.captured(text, printed);
        ran.map(|_| Value::Text(text))
    }

    pub(super) fn bind(&mut self, called: &'a Macro, arguments: Arguments<'a>) -> Done<()> {
        let name = &self.program.names[called.name as usize];
        let Arguments { positional, named } = arguments;
        let frame = self.frame;
        let given = positional.len();
        let mut positional = positional.into_iter();
        let mut named = named;
        let without_default = called.parameters.len() - called.defaults.len();
        for (index, &parameter) in called.parameters.iter().enumerate() {
            let text = self.program.names[parameter as usize].as_str();
            let by_name = named.iter().position(|(known, _)| *known == text).map(|at| named.remove(at).1);
            let value = match (positional.next(), by_name) {
                (Some(_), Some(_)) => {
                    return refuse(format!("macro '{name}' got multiple values for argument '{text}'"));
                }
                (Some(value), None) | (None, Some(value)) => value,
                (None, None) => match index.checked_sub(without_default) {
                    Some(default) => self.evaluate(&called.defaults[default])?,
                    None => Value::Undefined,
                },
            };
            self.frames[frame].set(parameter, value);
        }
        let rest: Vec<Value<'a>> = positional.collect();
        if let Some(varargs) = self.program.number_of("varargs") {
            self.frames[frame].set(varargs, Value::tuple(rest));
        } else if !rest.is_empty() {
            let takes = called.parameters.len();
            return refuse(format!("macro '{name}' takes not more than {takes} argument(s), {given} were given"));
        }
        if let Some(kwargs) = self.program.number_of("kwargs") {
            let pairs = named.into_iter().map(|(name, value)| (Value::from(name), value)).collect();
            self.frames[frame].set(kwargs, Value::Dict(Rc::new(pairs)));
        } else if let Some((unknown, _)) = named.first() {
            return refuse(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if let (Some(Some((number, frame_of_caller))), Some(name)) =
            (self.callers.last().copied(), self.program.number_of("caller"))
        {
            self.frames[frame].set(name, Value::Macro(number, frame_of_caller));
        }
        Ok(())
    }

    pub(super) fn call_function(&mut self, function: Function, arguments: Arguments<'a>) -> Done<Value<'a>> {
        let Arguments { positional, named } = arguments;
        match function {
            Function::Raise => {
                let message = positional.first().cloned().or_else(|| named.first().map(|(_, value)| value.clone()));
                let said = self.text(&message.unwrap_or(Value::Undefined))?;
                refuse(format!("{}{}", SAYS, said.as_str()))
            }
            Function::Now => {
                let Some(format) = positional.first().and_then(Value::as_str) else {
                    return refuse("`strftime_now` takes a format");
                };
                match self.stage.date {
                    Some(date) => Ok(Value::from(date.strftime(format))),
                    None => refuse("the template prints the date; give the date with `--date YYYY-MM-DD`"),
                }
            }
            Function::Namespace => {
                self.namespaces.push(Vec::new());
                let number = self.namespaces.len() - 1;
                for (key, value) in self.pairs_of(positional)? {
                    self.set_in_namespace(number, Cow::Owned(key), value)?;
                }
                for (name, value) in named {
                    self.set_in_namespace(number, Cow::Borrowed(name), value)?;
                }
                Ok(Value::Namespace(number))
            }
            Function::Range => self.range(&positional),
            Function::Dict => {
                let mut pairs: Vec<(Value<'a>, Value<'a>)> =
                    self.pairs_of(positional)?.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
                for (name, value) in named {
                    pairs.retain(|(known, _)| known.as_str() != Some(name));
                    pairs.push((Value::from(name), value));
                }
                Ok(Value::Dict(Rc::new(pairs)))
            }
        }
    }

    /// What `dict(mapping)` takes.
    pub(super) fn pairs_of(&mut self, positional: Vec<Value<'a>>) -> Done<Vec<(String, Value<'a>)>> {
        let mut pairs = Vec::new();
        for value in positional {
            for (key, value) in self.members(&value)? {
                let Some(key) = key.as_str() else { return refuse("a key that is no string") };
                pairs.push((key.to_owned(), value));
            }
        }
        Ok(pairs)
    }

    pub(super) fn range(&mut self, bounds: &[Value<'a>]) -> Done<Value<'a>> {
        let bounds: Vec<i128> = bounds.iter().map(|bound| self.integer(bound)).collect::<Done<_>>()?;
        let (start, stop, step) = match bounds[..] {
            [stop] => (0, stop, 1),
            [start, stop] => (start, stop, 1),
            [start, stop, step] if step != 0 => (start, stop, step),
            _ => return refuse("`range` takes one to three numbers, the last one not 0"),
        };
        let mut items = Vec::new();
        let mut at = start;
        while if step > 0 { at < stop } else { at > stop } {
            // Jinja's sandbox has the same limit.
            if items.len() >= 100_000 {
                return refuse("a range of more than 100,000 numbers");
            }
            self.burn(0)?;
            items.push(Value::Int(at));
            at = at.saturating_add(step);
        }
        Ok(Value::view(items))
    }
}
