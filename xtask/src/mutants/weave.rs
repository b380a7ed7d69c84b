//! All mutants of a file in one text, each behind `::world::mutant(NUMBER)`.
//!
//! Nothing of the text is taken away: what a mutant says instead is put before the
//! place it changes, and an `else` in between. Where changes lie within each other,
//! the inner ones are woven into the `else` alone: one mutant is awake at a time.

use super::list::Mutant;
use quote::ToTokens;
use std::collections::BTreeMap;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

#[cfg(test)]
mod tests;

/// A file with its mutants.
pub struct Woven {
    pub text: String,
    /// Where the mutants stand in it.
    pub at: Vec<(u32, Range<usize>)>,
    /// Where whatever has mutants stands, with what it was: outer ones first.
    pub around: Vec<(Vec<u32>, Range<usize>)>,
    /// Those that this cannot weave: of constants, of conditions that bind names, arms
    /// of a match that has no other for all that is left, functions whose type only
    /// their body says.
    pub left_out: Vec<u32>,
}

pub fn weave(text: &str, mutants: &[&Mutant]) -> Result<Woven, String> {
    let file = syn::parse_file(text).map_err(|error| error.to_string())?;
    let mut wanted: BTreeMap<Place, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        wanted.entry((mutant.line, mutant.column, mutant.genre.as_str())).or_default().push(mutant);
    }
    let mut weaver = Weaver { wanted, edits: Vec::new(), constant: false };
    weaver.visit_file(&file);
    let left_out = weaver.wanted.values().flatten().map(|mutant| mutant.number).collect();
    Ok(write(text, &weaver.edits, left_out))
}

type Place<'a> = (usize, usize, &'a str);

/// What is put around (or, where the range is empty, into) a piece of the text.
struct Edit {
    range: Range<usize>,
    before: Vec<Piece>,
    after: &'static str,
}

/// Text that is added, and whose.
struct Piece {
    mutant: Option<u32>,
    text: String,
}

/// Edits come outer ones first.
fn write(text: &str, edits: &[Edit], left_out: Vec<u32>) -> Woven {
    let mut stops: Vec<(usize, bool, isize)> = Vec::new();
    for (index, edit) in edits.iter().enumerate() {
        let index = index as isize;
        stops.push((edit.range.start, true, index));
        if !edit.range.is_empty() {
            stops.push((edit.range.end, false, -index));
        }
    }
    stops.sort_unstable();
    let around = vec![(Vec::new(), 0..0); edits.len()];
    let mut woven = Woven { text: String::new(), at: Vec::new(), around, left_out };
    let (to, mut done) = (&mut woven.text, 0);
    for (place, opens, index) in stops {
        *to += &text[done..place];
        done = place;
        let index = index.unsigned_abs();
        let edit = &edits[index];
        if opens {
            let start = to.len();
            for piece in &edit.before {
                let start = to.len();
                *to += &piece.text;
                woven.at.extend(piece.mutant.map(|mutant| (mutant, start..to.len())));
            }
            let mutants = edit.before.iter().filter_map(|piece| piece.mutant).collect();
            woven.around[index] = (mutants, start..to.len());
        } else {
            *to += edit.after;
            woven.around[index].1.end = to.len();
        }
    }
    *to += &text[done..];
    woven
}

fn asked(mutant: &Mutant) -> String {
    format!("::world::mutant({})", mutant.number)
}

/// In place of an expression: what each mutant says, else what it was.
fn instead<'a>(of: Range<usize>, said: impl Iterator<Item = (&'a Mutant, String)>) -> Edit {
    let mut before = vec![Piece { mutant: None, text: "(".to_owned() }];
    for (mutant, value) in said {
        let text = format!("if {} {{ {value} }} else ", asked(mutant));
        before.push(Piece { mutant: Some(mutant.number), text });
    }
    before.push(Piece { mutant: None, text: "{ ".to_owned() });
    Edit { range: of, before, after: " })" }
}

fn source(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}

/// Whether the expression binds names for what comes after it: `a && let Some(b) = c`.
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

struct Weaver<'a> {
    /// Not met yet, by where they begin.
    wanted: BTreeMap<Place<'a>, Vec<&'a Mutant>>,
    edits: Vec<Edit>,
    /// Within what is computed when it is compiled, and can ask for no switch.
    constant: bool,
}

impl<'a> Weaver<'a> {
    fn met(&mut self, what: &impl Spanned, genre: &'a str) -> Vec<&'a Mutant> {
        if self.constant {
            return Vec::new();
        }
        let start = what.span().start();
        self.wanted.remove(&(start.line, start.column + 1, genre)).unwrap_or_default()
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let Some(first) = block.stmts.first() else { return };
        if matches!(&signature.output, syn::ReturnType::Type(_, what) if matches!(**what, syn::Type::ImplTrait(_)))
        {
            return;
        }
        let mutants = self.met(first, "FnValue");
        if mutants.is_empty() {
            return;
        }
        let piece = |mutant: &Mutant| Piece {
            mutant: Some(mutant.number),
            text: format!(" if {} {{ return {}; }}", asked(mutant), mutant.replacement),
        };
        let at = block.brace_token.span.open().byte_range().end;
        self.edits.push(Edit { range: at..at, before: mutants.into_iter().map(piece).collect(), after: "" });
    }

    fn arm(&mut self, arm: &syn::Arm, covered: bool) {
        let guard = arm.guard.as_ref().map(|(_, guard)| guard);
        if guard.is_none_or(|guard| !binds(guard)) {
            let range = guard.map(|guard| guard.span().byte_range());
            let end = arm.pat.span().byte_range().end;
            let gone = if covered { self.met(arm, "MatchArm") } else { Vec::new() };
            for mutant in gone {
                let (said, open, close) = if guard.is_some() { ("", " && (", ")") } else { (" if ", "", "") };
                let text = format!("{said}!{}{open}", asked(mutant));
                let before = vec![Piece { mutant: Some(mutant.number), text }];
                self.edits.push(Edit { range: range.clone().unwrap_or(end..end), before, after: close });
            }
            let mutants = guard.map(|guard| self.met(guard, "MatchArmGuard")).unwrap_or_default();
            if let Some(range) = range.filter(|_| !mutants.is_empty()) {
                let said = mutants.into_iter().map(|mutant| (mutant, mutant.replacement.clone()));
                self.edits.push(instead(range, said));
            }
        }
        visit::visit_arm(self, arm);
    }

    fn within(&mut self, constant: bool, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.constant, constant);
        visit(self);
        self.constant = outside;
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(item.sig.constness.is_some(), |weaver| {
            weaver.function(&item.sig, &item.block);
            visit::visit_item_fn(weaver, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(item.sig.constness.is_some(), |weaver| {
            weaver.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(weaver, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.within(true, |weaver| visit::visit_item_const(weaver, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.within(true, |weaver| visit::visit_impl_item_const(weaver, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.within(true, |weaver| visit::visit_trait_item_const(weaver, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.within(true, |weaver| visit::visit_item_static(weaver, item));
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.within(true, |weaver| visit::visit_variant(weaver, variant));
    }

    fn visit_type(&mut self, what: &'ast syn::Type) {
        self.within(true, |weaver| visit::visit_type(weaver, what));
    }

    fn visit_expr_const(&mut self, block: &'ast syn::ExprConst) {
        self.within(true, |weaver| visit::visit_expr_const(weaver, block));
    }

    fn visit_expr_repeat(&mut self, array: &'ast syn::ExprRepeat) {
        self.visit_expr(&array.expr);
        self.within(true, |weaver| weaver.visit_expr(&array.len));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if !binds(&binary.left) && !binds(&binary.right) {
            let mutants = self.met(&binary.op, "BinaryOperator");
            if !mutants.is_empty() {
                let (left, right) = (source(&binary.left), source(&binary.right));
                let said = mutants.into_iter();
                let said = said.map(|mutant| (mutant, format!("({left}) {} ({right})", mutant.replacement)));
                self.edits.push(instead(binary.span().byte_range(), said));
            }
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let mutants = self.met(&unary.op, "UnaryOperator");
        if !mutants.is_empty() {
            let said = mutants.into_iter().map(|mutant| (mutant, source(&unary.expr)));
            self.edits.push(instead(unary.span().byte_range(), said));
        }
        visit::visit_expr_unary(self, unary);
    }

    /// An arm that is gone is one that is never met: another must be there for what
    /// it was for.
    fn visit_expr_match(&mut self, all: &'ast syn::ExprMatch) {
        self.visit_expr(&all.expr);
        let rest = |arm: &syn::Arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none();
        let covered = all.arms.iter().any(rest);
        all.arms.iter().for_each(|arm| self.arm(arm, covered));
    }

    fn visit_expr_struct(&mut self, structure: &'ast syn::ExprStruct) {
        let mut said = Vec::new();
        for (index, field) in structure.fields.iter().enumerate() {
            for mutant in self.met(field, "StructField") {
                let mut without = structure.clone();
                let fields = structure.fields.iter().enumerate().filter(|(other, _)| *other != index);
                without.fields = fields.map(|(_, field)| field.clone()).collect();
                if without.rest.is_some() && !without.fields.empty_or_trailing() {
                    without.fields.push_punct(Default::default());
                }
                said.push((mutant, source(&without)));
            }
        }
        if !said.is_empty() {
            self.edits.push(instead(structure.span().byte_range(), said.into_iter()));
        }
        visit::visit_expr_struct(self, structure);
    }
}
