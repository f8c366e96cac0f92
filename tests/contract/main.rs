//! Every function of `include/subquad.h` against every way to call it badly.
//!
//! The list of functions is read from the header: one without rows fails, and so does one that skips a condition without
//! saying why. Whatever a call refuses, not a byte of the memory that it was given may differ afterwards.
// It plays the C host.
#![allow(unsafe_code)]

mod attention;
mod bound;
mod cache;
mod gradient;
mod head;
mod kernels;
mod memory;
mod need;
mod partial;
mod rotary;
mod rules;
mod tasks;

use memory::{Memory, Region};
use std::collections::BTreeSet;
use std::ffi::CStr;
use subquad::ffi::*;

/// Ways to call a function badly, or at the edge of what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Null,
    Misaligned,
    ShortScratch,
    ZeroSizes,
    OverflowingSizes,
    Overlap,
    NonFinite,
    InnerStride,
    HeadsNotDivisible,
    BadScaleOrCap,
    MaskLongerThanKeys,
    OutOfRange,
    IntegerLimits,
    UnknownNumber,
}

impl Condition {
    const ALL: [Condition; 14] = [
        Condition::Null,
        Condition::Misaligned,
        Condition::ShortScratch,
        Condition::ZeroSizes,
        Condition::OverflowingSizes,
        Condition::Overlap,
        Condition::NonFinite,
        Condition::InnerStride,
        Condition::HeadsNotDivisible,
        Condition::BadScaleOrCap,
        Condition::MaskLongerThanKeys,
        Condition::OutOfRange,
        Condition::IntegerLimits,
        Condition::UnknownNumber,
    ];
}

pub enum Expect {
    /// This status, and no byte written anywhere.
    Refused(i32),
    /// Success, and no byte written but in the scratch and the report.
    Nothing,
    /// Success, and no byte written outside of the outputs, the scratch and the report.
    Runs,
}

pub enum Row<A> {
    Case(Condition, &'static str, Expect, fn(&mut A)),
    NotApplicable(Condition, &'static str),
}

/// The rows of one function; `A` is its arguments, good ones until a row spoils them.
pub struct Table<A> {
    pub function: &'static str,
    pub good: fn(&Memory) -> A,
    pub call: fn(&A) -> i32,
    pub rows: Vec<Row<A>>,
}

trait Contract {
    fn function(&self) -> &'static str;
    fn covered(&self) -> BTreeSet<Condition>;
    /// Runs all cases and counts them.
    fn check(&self) -> usize;
}

impl<A> Contract for Table<A> {
    fn function(&self) -> &'static str {
        self.function
    }

    fn covered(&self) -> BTreeSet<Condition> {
        let condition = |row: &Row<A>| match *row {
            Row::Case(condition, ..) => condition,
            Row::NotApplicable(condition, reason) => {
                assert!(!reason.is_empty());
                condition
            }
        };
        self.rows.iter().map(condition).collect()
    }

    fn check(&self) -> usize {
        let mut count = 0;
        // The arguments that rows spoil are good to begin with, or a row would prove nothing.
        self.case("good arguments", &Expect::Runs, |_| ());
        for row in &self.rows {
            if let Row::Case(condition, what, expect, spoil) = row {
                self.case(&format!("{condition:?}, {what}"), expect, *spoil);
                count += 1;
            }
        }
        count
    }
}

impl<A> Table<A> {
    fn case(&self, what: &str, expect: &Expect, spoil: fn(&mut A)) {
        let memory = Memory::new();
        let mut arguments = (self.good)(&memory);
        spoil(&mut arguments);
        let before = memory.copy();
        let status = (self.call)(&arguments);
        let changed = memory.changed(&before);
        let (wanted, may_change): (i32, &[Region]) = match expect {
            Expect::Refused(status) => (*status, &[]),
            Expect::Nothing => (SUBQUAD_OK, &[Region::Work, Region::Report]),
            Expect::Runs => (SUBQUAD_OK, &Region::WRITTEN),
        };
        let name = self.function;
        assert_eq!(status, wanted, "{name}: {what}");
        assert!(
            changed.iter().all(|r| may_change.contains(r)),
            "{name}: {what}: wrote to {changed:?}"
        );
    }
}

/// A function that takes a number and returns a constant.
fn constant(function: &'static str) -> Box<dyn Contract> {
    let reason = "takes no pointer and no size, and cannot fail";
    Box::new(Table::<()> {
        function,
        good: |_| (),
        call: |_| SUBQUAD_OK,
        rows: Condition::ALL.iter().map(|&c| Row::NotApplicable(c, reason)).collect(),
    })
}

fn tables() -> Vec<Box<dyn Contract>> {
    let constants = [
        "subquad_status_message",
        "subquad_version",
        "subquad_abi_version",
        "subquad_isa_best",
        "subquad_isa_name",
    ];
    let tables = constants
        .into_iter()
        .map(constant)
        .chain(attention::tables())
        .chain(bound::tables())
        .chain(gradient::tables())
        .chain(need::tables())
        .chain(tasks::tables())
        .chain(head::tables())
        .chain(cache::tables())
        .chain(rotary::tables());
    tables.chain(partial::tables()).chain(kernels::tables()).collect()
}

/// Names of the functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = include_str!("../../include/subquad.h");
    let mut code = String::new();
    for (i, part) in header.split("/*").enumerate() {
        code.push_str(if i == 0 { part } else { part.split_once("*/").unwrap().1 });
    }
    let names = code.match_indices("subquad_").filter_map(|(at, _)| {
        let name: String = code[at..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        code[at + name.len()..].starts_with('(').then_some(name)
    });
    names.collect()
}

#[test]
fn every_function_has_every_row_and_keeps_it() {
    let tables = tables();
    let listed: BTreeSet<String> = tables.iter().map(|t| t.function().to_string()).collect();
    assert_eq!(listed, declared());
    let mut count = 0;
    for table in &tables {
        let missing: Vec<_> = Condition::ALL.iter().filter(|c| !table.covered().contains(c)).collect();
        assert!(missing.is_empty(), "{} has no rows for {missing:?}", table.function());
        count += table.check();
    }
    println!("{} functions, {count} cases", tables.len());
    assert!(count >= 150);
}

#[test]
fn bounds_are_there_where_they_were_asked_for() {
    bound::check_bounds(&Memory::new());
}

#[test]
fn tasks_are_the_call_in_any_order() {
    tasks::check_tasks(&Memory::new());
}

#[test]
fn the_size_query_is_exact() {
    need::check_need(&Memory::new());
    gradient::check_need(&Memory::new());
    head::check_need(&Memory::new());
    cache::check_need(&Memory::new());
}

fn text(pointer: *const std::ffi::c_char) -> &'static str {
    // SAFETY: the functions promise a constant text.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap()
}

#[test]
fn constants_are_what_the_header_says() {
    assert_eq!(text(subquad_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(subquad_abi_version(), SUBQUAD_ABI_VERSION);
    let messages: BTreeSet<&str> = (-17..=0).map(|n| text(subquad_status_message(n))).collect();
    assert_eq!(messages.len(), 18);
    for unknown in [1, -18, i32::MAX, i32::MIN] {
        assert_eq!(text(subquad_status_message(unknown)), "unknown status");
    }
    for unknown in [-1, 9, i32::MAX, i32::MIN] {
        assert_eq!(text(subquad_isa_name(unknown)), "unknown");
    }
    let best = subquad::Isa::best();
    assert_eq!(text(subquad_isa_name(subquad_isa_best())), best.name());
    for isa in subquad::Isa::all().filter(|isa| isa.number() != 0) {
        assert_eq!(text(subquad_isa_name(isa.number())), isa.name());
    }
}
