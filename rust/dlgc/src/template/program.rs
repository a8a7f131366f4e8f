//! A chat template as a program: what the parser understood, made ready to run.
//!
//! In: a template's source, `generation` tags rewritten. Out: a [`Program`] with every name interned and nothing
//! borrowed. minijinja's parser does the reading; running is [`super::machine`]'s, which does as Python does.
//! Constructs that transformers' environment does not have (`do`, inheritance, imports) are refused here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::machinery::ast;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value as Constant, ValueKind};

use super::generation;

/// The number of a name.
pub(super) type Name = u32;

/// A template, ready to run.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Its number among all programs of the process.
    pub(super) id: u64,
    pub(super) body: Vec<Statement>,
    pub(super) macros: Vec<Macro>,
    /// Names by number.
    pub(super) names: Vec<String>,
    /// Closing tags that the template looks for in a text, to cut it there: `</think>`.
    pub(super) looked_for: Vec<String>,
    /// Names that every turn of a loop asks for, if the template uses them.
    pub(super) loop_name: Option<Name>,
    pub(super) messages_name: Option<Name>,
    numbers: HashMap<String, Name>,
}

/// A statement and the line on which it begins.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Raw(String),
    Print(Expression),
    If {
        test: Expression,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    For(Box<For>),
    Set {
        target: Target,
        value: Expression,
    },
    /// Sets a name to the text of a body, which may pass through filters.
    Capture {
        target: Target,
        filter: Option<Expression>,
        body: Vec<Statement>,
    },
    With {
        assignments: Vec<(Target, Expression)>,
        body: Vec<Statement>,
    },
    Filter {
        filter: Expression,
        body: Vec<Statement>,
    },
    /// A `{% generation %}` block.
    Generation(Vec<Statement>),
    /// Defines a macro, by number.
    Macro(usize),
    /// Calls something with a body that it may call back, by its macro's number.
    CallBlock {
        call: Expression,
        caller: usize,
    },
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expression,
    pub(super) condition: Option<Expression>,
    pub(super) recursive: bool,
    /// Whether the body only looks and remembers: it prints nothing and calls nothing but methods.
    pub(super) is_quiet: bool,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Vec<Statement>,
}

/// What can be assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    /// An attribute of a namespace.
    Attribute(Name, String),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Name,
    pub(super) parameters: Vec<Name>,
    /// Of the last parameters.
    pub(super) defaults: Vec<Expression>,
    pub(super) body: Vec<Statement>,
}

#[derive(Debug)]
pub(super) enum Expression {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Name(Name),
    Slice(Box<[Option<Expression>; 4]>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    And(Box<[Expression; 2]>),
    Or(Box<[Expression; 2]>),
    Arithmetic(Arithmetic, Box<[Expression; 2]>),
    /// A chain of comparisons.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// Test, value, and value otherwise.
    Choose(Box<(Expression, Expression, Option<Expression>)>),
    /// A filter; without a value, of what a block printed.
    Filter {
        name: String,
        value: Option<Box<Expression>>,
        arguments: Vec<Argument>,
    },
    Test {
        name: String,
        value: Box<Expression>,
        arguments: Vec<Argument>,
    },
    Attribute(Box<Expression>, String),
    Item(Box<[Expression; 2]>),
    Call(Box<Expression>, Vec<Argument>),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    /// `~`
    Join,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Argument {
    Positional(Expression),
    Named(String, Expression),
    /// `*list`
    Spread(Expression),
    /// `**dict`
    SpreadNamed(Expression),
}

impl Program {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with the source, and in which line.
    pub(super) fn read(source: &str) -> Result<Self, String> {
        // Jinja drops one line break at the end of a template, and so does the parser's default.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|error| error.to_string())?;
        let parsed = minijinja::machinery::parse(source, "chat", syntax).map_err(|error| {
            let detail = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
            error.line().map_or_else(|| detail.clone(), |line| format!("{detail} (line {line} of the chat template)"))
        })?;
        static READ: AtomicU64 = AtomicU64::new(0);
        let mut program = Self { id: READ.fetch_add(1, Ordering::Relaxed), ..Self::default() };
        let ast::Stmt::Template(template) = parsed else { return Err("no template".to_owned()) };
        program.body = program.statements(&template.children)?;
        program.loop_name = program.number_of("loop");
        program.messages_name = program.number_of("messages");
        Ok(program)
    }

    /// The number of a name.
    pub(super) fn number(&mut self, name: &str) -> Name {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = Name::try_from(self.names.len()).expect("a template has fewer names than bytes");
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// The number of a name that the template uses.
    pub(super) fn number_of(&self, name: &str) -> Option<Name> {
        self.numbers.get(name).copied()
    }

    fn statements(&mut self, statements: &[ast::Stmt<'_>]) -> Result<Vec<Statement>, String> {
        statements.iter().map(|statement| self.statement(statement)).collect()
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) -> Result<Statement, String> {
        let refuse = |what: &str, line: u32| {
            Err(format!("`{what}` is not there for chat templates (line {line} of the chat template)"))
        };
        let at = |line: u32, kind: Kind| Ok(Statement { line, kind });
        match statement {
            ast::Stmt::Template(inner) => refuse("template", inner.span().start_line.into()),
            ast::Stmt::EmitRaw(inner) => at(inner.span().start_line.into(), Kind::Raw(inner.raw.to_owned())),
            ast::Stmt::EmitExpr(inner) => {
                at(inner.span().start_line.into(), Kind::Print(self.expression(&inner.expr)?))
            }
            ast::Stmt::IfCond(inner) => {
                let kind = Kind::If {
                    test: self.expression(&inner.expr)?,
                    then: self.statements(&inner.true_body)?,
                    otherwise: self.statements(&inner.false_body)?,
                };
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::ForLoop(inner) => {
                let body = self.statements(&inner.body)?;
                let kind = Kind::For(Box::new(For {
                    target: self.target(&inner.target)?,
                    items: self.expression(&inner.iter)?,
                    condition: inner.filter_expr.as_ref().map(|filter| self.expression(filter)).transpose()?,
                    recursive: inner.recursive,
                    is_quiet: !inner.recursive && inner.filter_expr.is_none() && is_quiet(&body),
                    body,
                    otherwise: self.statements(&inner.else_body)?,
                }));
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::Set(inner) => {
                let kind = Kind::Set { target: self.target(&inner.target)?, value: self.expression(&inner.expr)? };
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::SetBlock(inner) => {
                let kind = Kind::Capture {
                    target: self.target(&inner.target)?,
                    filter: inner.filter.as_ref().map(|filter| self.expression(filter)).transpose()?,
                    body: self.statements(&inner.body)?,
                };
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::WithBlock(inner) => {
                if let [ast::Stmt::FilterBlock(block)] = &inner.body[..]
                    && let ast::Expr::Filter(filter) = &block.filter
                    && filter.name == generation::FILTER
                {
                    return at(inner.span().start_line.into(), Kind::Generation(self.statements(&block.body)?));
                }
                let assign = |program: &mut Self, (target, value): &(ast::Expr<'_>, ast::Expr<'_>)| {
                    Ok::<_, String>((program.target(target)?, program.expression(value)?))
                };
                let assignments =
                    inner.assignments.iter().map(|pair| assign(self, pair)).collect::<Result<Vec<_>, _>>()?;
                let kind = Kind::With { assignments, body: self.statements(&inner.body)? };
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::FilterBlock(inner) => {
                let kind =
                    Kind::Filter { filter: self.expression(&inner.filter)?, body: self.statements(&inner.body)? };
                at(inner.span().start_line.into(), kind)
            }
            ast::Stmt::AutoEscape(inner) => refuse("autoescape", inner.span().start_line.into()),
            ast::Stmt::Do(inner) => refuse("do", inner.span().start_line.into()),
            ast::Stmt::Macro(inner) => {
                let number = self.define(inner)?;
                at(inner.span().start_line.into(), Kind::Macro(number))
            }
            ast::Stmt::CallBlock(inner) => {
                let caller = self.define(&inner.macro_decl)?;
                let line = inner.span().start_line.into();
                at(line, Kind::CallBlock { call: self.call(&inner.call)?, caller })
            }
            ast::Stmt::Break(inner) => at(inner.span().start_line.into(), Kind::Break),
            ast::Stmt::Continue(inner) => at(inner.span().start_line.into(), Kind::Continue),
            ast::Stmt::Block(inner) => refuse("block", inner.span().start_line.into()),
            ast::Stmt::Import(inner) => refuse("import", inner.span().start_line.into()),
            ast::Stmt::FromImport(inner) => refuse("from … import", inner.span().start_line.into()),
            ast::Stmt::Extends(inner) => refuse("extends", inner.span().start_line.into()),
            ast::Stmt::Include(inner) => refuse("include", inner.span().start_line.into()),
        }
    }

    fn define(&mut self, declared: &ast::Macro<'_>) -> Result<usize, String> {
        let parameters = declared
            .args
            .iter()
            .map(|argument| match argument {
                ast::Expr::Var(name) => Ok(self.number(name.id)),
                _ => Err("a parameter of a macro must be a name".to_owned()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let made = Macro {
            name: self.number(declared.name),
            parameters,
            defaults: self.expressions(&declared.defaults)?,
            body: self.statements(&declared.body)?,
        };
        self.macros.push(made);
        Ok(self.macros.len() - 1)
    }

    fn target(&mut self, target: &ast::Expr<'_>) -> Result<Target, String> {
        match target {
            ast::Expr::Var(name) => Ok(Target::Name(self.number(name.id))),
            ast::Expr::GetAttr(inner) => match &inner.expr {
                ast::Expr::Var(name) => Ok(Target::Attribute(self.number(name.id), inner.name.to_owned())),
                _ => Err("only attributes of a namespace can be set".to_owned()),
            },
            ast::Expr::List(inner) => {
                Ok(Target::Tuple(inner.items.iter().map(|item| self.target(item)).collect::<Result<_, _>>()?))
            }
            ast::Expr::Tuple(inner) => {
                Ok(Target::Tuple(inner.items.iter().map(|item| self.target(item)).collect::<Result<_, _>>()?))
            }
            _ => Err("this cannot be assigned to".to_owned()),
        }
    }

    fn expressions(&mut self, expressions: &[ast::Expr<'_>]) -> Result<Vec<Expression>, String> {
        expressions.iter().map(|expression| self.expression(expression)).collect()
    }

    fn pair(&mut self, left: &ast::Expr<'_>, right: &ast::Expr<'_>) -> Result<Box<[Expression; 2]>, String> {
        Ok(Box::new([self.expression(left)?, self.expression(right)?]))
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) -> Result<Expression, String> {
        Ok(match expression {
            ast::Expr::Var(inner) => Expression::Name(self.number(inner.id)),
            ast::Expr::Const(inner) => constant(&inner.value)?,
            ast::Expr::Slice(inner) => {
                let mut part = |part: &Option<ast::Expr<'_>>| part.as_ref().map(|it| self.expression(it)).transpose();
                let (start, stop, step) = (part(&inner.start)?, part(&inner.stop)?, part(&inner.step)?);
                Expression::Slice(Box::new([Some(self.expression(&inner.expr)?), start, stop, step]))
            }
            ast::Expr::UnaryOp(inner) => {
                let value = Box::new(self.expression(&inner.expr)?);
                match inner.op {
                    ast::UnaryOpKind::Not => Expression::Not(value),
                    ast::UnaryOpKind::Neg => Expression::Negative(value),
                }
            }
            ast::Expr::BinOp(inner) => self.binary(inner)?,
            ast::Expr::Compare(inner) => {
                let first = Box::new(self.expression(&inner.expr)?);
                let mut chain = Vec::with_capacity(inner.ops.len());
                if matches!(
                    inner.ops[..],
                    [ast::CompareOp { op: ast::CompareOpKind::In | ast::CompareOpKind::NotIn, .. }]
                ) {
                    self.look_for(&first);
                }
                for operation in &inner.ops {
                    chain.push((comparison(operation.op), self.expression(&operation.expr)?));
                }
                Expression::Compare(first, chain)
            }
            ast::Expr::IfExpr(inner) => Expression::Choose(Box::new((
                self.expression(&inner.test_expr)?,
                self.expression(&inner.true_expr)?,
                inner.false_expr.as_ref().map(|otherwise| self.expression(otherwise)).transpose()?,
            ))),
            ast::Expr::Filter(inner) => Expression::Filter {
                name: inner.name.to_owned(),
                value: inner.expr.as_ref().map(|value| self.expression(value)).transpose()?.map(Box::new),
                arguments: self.arguments(&inner.args)?,
            },
            ast::Expr::Test(inner) => Expression::Test {
                name: inner.name.to_owned(),
                value: Box::new(self.expression(&inner.expr)?),
                arguments: self.arguments(&inner.args)?,
            },
            ast::Expr::GetAttr(inner) => {
                Expression::Attribute(Box::new(self.expression(&inner.expr)?), inner.name.to_owned())
            }
            ast::Expr::GetItem(inner) => Expression::Item(self.pair(&inner.expr, &inner.subscript_expr)?),
            ast::Expr::Call(inner) => self.call(inner)?,
            ast::Expr::List(inner) => Expression::List(self.expressions(&inner.items)?),
            ast::Expr::Tuple(inner) => Expression::Tuple(self.expressions(&inner.items)?),
            ast::Expr::Map(inner) => {
                let mut pairs = Vec::with_capacity(inner.keys.len());
                for (key, value) in inner.keys.iter().zip(&inner.values) {
                    pairs.push((self.expression(key)?, self.expression(value)?));
                }
                Expression::Dict(pairs)
            }
        })
    }

    fn binary(&mut self, inner: &ast::BinOp<'_>) -> Result<Expression, String> {
        let arithmetic = match inner.op {
            ast::BinOpKind::ScAnd => return Ok(Expression::And(self.pair(&inner.left, &inner.right)?)),
            ast::BinOpKind::ScOr => return Ok(Expression::Or(self.pair(&inner.left, &inner.right)?)),
            ast::BinOpKind::Add => Arithmetic::Add,
            ast::BinOpKind::Sub => Arithmetic::Subtract,
            ast::BinOpKind::Mul => Arithmetic::Multiply,
            ast::BinOpKind::Div => Arithmetic::Divide,
            ast::BinOpKind::FloorDiv => Arithmetic::FloorDivide,
            ast::BinOpKind::Rem => Arithmetic::Remainder,
            ast::BinOpKind::Pow => Arithmetic::Power,
            ast::BinOpKind::Concat => Arithmetic::Join,
            ast::BinOpKind::Eq => return self.compared(inner, Comparison::Equal),
            ast::BinOpKind::Ne => return self.compared(inner, Comparison::Unequal),
            ast::BinOpKind::Lt => return self.compared(inner, Comparison::Less),
            ast::BinOpKind::Lte => return self.compared(inner, Comparison::LessOrEqual),
            ast::BinOpKind::Gt => return self.compared(inner, Comparison::Greater),
            ast::BinOpKind::Gte => return self.compared(inner, Comparison::GreaterOrEqual),
            ast::BinOpKind::In => return self.compared(inner, Comparison::In),
        };
        Ok(Expression::Arithmetic(arithmetic, self.pair(&inner.left, &inner.right)?))
    }

    fn compared(&mut self, inner: &ast::BinOp<'_>, comparison: Comparison) -> Result<Expression, String> {
        let left = Box::new(self.expression(&inner.left)?);
        if comparison == Comparison::In {
            self.look_for(&left);
        }
        Ok(Expression::Compare(left, vec![(comparison, self.expression(&inner.right)?)]))
    }

    fn call(&mut self, inner: &ast::Call<'_>) -> Result<Expression, String> {
        let (callee, arguments) = (self.expression(&inner.expr)?, self.arguments(&inner.args)?);
        if let Expression::Attribute(_, method) = &callee
            && matches!(method.as_str(), "split" | "rsplit" | "partition" | "rpartition" | "find")
            && let Some(Argument::Positional(text)) = arguments.first()
        {
            self.look_for(text);
        }
        Ok(Expression::Call(Box::new(callee), arguments))
    }

    fn look_for(&mut self, text: &Expression) {
        if let Expression::Text(text) = text
            && text.trim().starts_with("</")
        {
            self.looked_for.push(text.trim().to_owned());
        }
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) -> Result<Vec<Argument>, String> {
        arguments
            .iter()
            .map(|argument| {
                Ok(match argument {
                    ast::CallArg::Pos(value) => Argument::Positional(self.expression(value)?),
                    ast::CallArg::Kwarg(name, value) => Argument::Named((*name).to_owned(), self.expression(value)?),
                    ast::CallArg::PosSplat(value) => Argument::Spread(self.expression(value)?),
                    ast::CallArg::KwargSplat(value) => Argument::SpreadNamed(self.expression(value)?),
                })
            })
            .collect()
    }
}

/// Whether statements only look and remember.
fn is_quiet(statements: &[Statement]) -> bool {
    statements.iter().all(|statement| match &statement.kind {
        Kind::Set { target: Target::Name(_) | Target::Attribute(..), value } => value.is_quiet(),
        Kind::If { test, then, otherwise } => test.is_quiet() && is_quiet(then) && is_quiet(otherwise),
        _ => false,
    })
}

impl Expression {
    fn is_quiet(&self) -> bool {
        let all = |arguments: &[Argument]| {
            arguments.iter().all(|argument| matches!(argument, Argument::Positional(value) if value.is_quiet()))
        };
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Name(_) => true,
            Self::Not(value) | Self::Negative(value) | Self::Attribute(value, _) => value.is_quiet(),
            Self::And(pair) | Self::Or(pair) | Self::Arithmetic(_, pair) | Self::Item(pair) => {
                pair.iter().all(Self::is_quiet)
            }
            Self::Compare(first, chain) => first.is_quiet() && chain.iter().all(|(_, value)| value.is_quiet()),
            Self::Test { value, arguments, .. } => value.is_quiet() && all(arguments),
            Self::Filter { name, value: Some(value), arguments } => {
                matches!(name.as_str(), "length" | "count" | "trim" | "default") && value.is_quiet() && all(arguments)
            }
            Self::Call(callee, arguments) => {
                matches!(&**callee, Self::Attribute(value, _) if value.is_quiet()) && all(arguments)
            }
            _ => false,
        }
    }

    /// Whether it calls nothing: evaluating it changes nothing, and does so twice as well as once.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Int(_) | Self::Name(_) => true,
            Self::Attribute(value, _) => value.only_looks(),
            Self::Arithmetic(_, pair) => pair.iter().all(Self::only_looks),
            _ => false,
        }
    }

    /// Whether it only counts: nothing in it can go wrong at one turn of a loop and not at another.
    pub(super) fn only_counts(&self, [loop_name, messages]: [Option<Name>; 2]) -> bool {
        match self {
            Self::Int(_) => true,
            Self::Attribute(value, name) => {
                matches!(&**value, Self::Name(number) if Some(*number) == loop_name)
                    && matches!(name.as_str(), "index" | "index0")
            }
            Self::Filter { name, value: Some(value), arguments } => {
                let is_messages = matches!(&**value, Self::Name(number) if Some(*number) == messages);
                name == "length" && is_messages && arguments.is_empty()
            }
            Self::Arithmetic(Arithmetic::Add | Arithmetic::Subtract, pair) => {
                pair.iter().all(|value| value.only_counts([loop_name, messages]))
            }
            _ => false,
        }
    }
}

impl Comparison {
    /// The same with the sides changed.
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            other => other,
        }
    }

    /// What comes of it for two numbers.
    pub(super) fn of_numbers(self, left: i128, right: i128) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Unequal => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::In | Self::NotIn => false,
        }
    }
}

fn comparison(kind: ast::CompareOpKind) -> Comparison {
    match kind {
        ast::CompareOpKind::Eq => Comparison::Equal,
        ast::CompareOpKind::Ne => Comparison::Unequal,
        ast::CompareOpKind::Lt => Comparison::Less,
        ast::CompareOpKind::Lte => Comparison::LessOrEqual,
        ast::CompareOpKind::Gt => Comparison::Greater,
        ast::CompareOpKind::Gte => Comparison::GreaterOrEqual,
        ast::CompareOpKind::In => Comparison::In,
        ast::CompareOpKind::NotIn => Comparison::NotIn,
    }
}

fn constant(value: &Constant) -> Result<Expression, String> {
    Ok(match value.kind() {
        ValueKind::None => Expression::None,
        ValueKind::Bool => Expression::Bool(value.is_true()),
        ValueKind::String => Expression::Text(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number if value.is_integer() => {
            Expression::Int(i128::try_from(value.clone()).map_err(|_| format!("`{value}` is too large a number"))?)
        }
        ValueKind::Number => Expression::Float(f64::try_from(value.clone()).map_err(|error| error.to_string())?),
        other => return Err(format!("a constant of kind {other}")),
    })
}
