//! The work of a call as data: tasks that write to disjoint memory, for whatever threads there are.

use super::block::{Place, PANELS};
use super::Shape;
use crate::error::Error;
use crate::report::Report;
use crate::view::{Layout, TensorMut};
use core::ops::Range;

/// The rows that one task computes: every combination of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub batch: Range<usize>,
    pub kv_heads: Range<usize>,
    /// Which of the query heads of each of the `kv_heads`.
    pub group: Range<usize>,
    pub queries: Range<usize>,
}

impl Task {
    /// The whole call.
    pub(super) const fn all(shape: &Shape) -> Task {
        Task {
            batch: 0..shape.batch,
            kv_heads: 0..shape.kv_heads,
            group: 0..shape.group(),
            queries: 0..shape.queries,
        }
    }

    /// Calls `f` with one block of up to `rows` rows after the other.
    #[inline(always)]
    pub(super) fn places(&self, shape: &Shape, rows: usize, mut f: impl FnMut(&Place)) {
        let group = self.group.len();
        // A row of a block is a query and a head of the group; their product fits, see Shape::check.
        let (first, end) = (self.queries.start * group, self.queries.end * group);
        for batch in self.batch.clone() {
            for kv_head in self.kv_heads.clone() {
                for start in (first..end).step_by(rows.max(1)) {
                    f(&Place {
                        batch,
                        kv_head,
                        head: kv_head * shape.group() + self.group.start,
                        group,
                        start,
                        used: (end - start).min(rows),
                    });
                }
            }
        }
    }

    /// Which batch entries, heads and rows of an output are the task's.
    ///
    /// An output may have fewer than the call has, as those of keys and biases: several then share one. Tasks are not cut
    /// between these, so all of them are here.
    pub(super) fn entries(&self, shape: &Shape, layout: &Layout) -> [Range<usize>; 3] {
        let ([batch, heads, rows, _], group) = (layout.shape(), shape.group());
        let first = self.kv_heads.start.saturating_mul(group);
        let last = self.kv_heads.end.saturating_sub(1).saturating_mul(group);
        let query_heads = first.saturating_add(self.group.start)..last.saturating_add(self.group.end);
        [
            entries_of(&self.batch, shape.batch, batch),
            entries_of(&query_heads, shape.query_heads, heads),
            entries_of(&self.queries, shape.queries, rows),
        ]
    }

    /// The elements of an output from the first to one past the last that the task writes.
    fn elements(&self, shape: &Shape, layout: &Layout) -> Range<usize> {
        let ([.., cols], entries) = (layout.shape(), self.entries(shape, layout));
        if cols == 0 || entries.iter().any(Range::is_empty) {
            return 0..0;
        }
        let first = entries.each_ref().map(|range| range.start);
        let last = entries.map(|range| range.end.saturating_sub(1));
        layout.element(first)..layout.element(last).saturating_add(cols)
    }

    fn is_empty(&self) -> bool {
        [&self.batch, &self.kv_heads, &self.group, &self.queries]
            .iter()
            .any(|range| range.is_empty())
    }
}

/// What `range` of `0..len` is of as many entries as `of`: all of them for all, otherwise those that it shares.
fn entries_of(range: &Range<usize>, len: usize, of: usize) -> Range<usize> {
    if range.len() == len {
        return 0..of;
    }
    let share = len.checked_div(of).unwrap_or(1).max(1);
    range.start / share..range.end.div_ceil(share)
}

/// How far a method lets its work be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grain {
    /// Query heads that read the same keys may be in different tasks.
    pub group: bool,
    /// Lanes of a panel, where queries may be.
    pub panel: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Axis {
    Batch,
    KvHeads,
    Group,
    Queries,
}

/// A call cut into tasks, in the order in which their outputs lie in memory.
///
/// An axis is cut only where that cuts every output into pieces of memory one behind the other, hence from the
/// outermost axis inwards, and an inner one only after all outer ones are cut into single entries: batch, heads and
/// rows in the 4-D layout, batch and rows (of all heads together) in packed layouts. Where outputs are of different
/// layouts, as many axes as they have in common, and none along which an output is a sum. Rows are cut where blocks or
/// panels end, so that none is left half full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks {
    shape: Shape,
    /// How many parts of which axis, outermost first. The product of the parts is the number of tasks.
    cuts: [(Axis, usize); 4],
    /// Rows are cut at multiples of this.
    unit: usize,
}

impl Tasks {
    /// At most `wanted` tasks of similar size, and at least one; [`Error::Parameter`] if none is wanted.
    pub(super) fn new(shape: Shape, layouts: &[Option<&Layout>], grain: Grain, wanted: usize) -> Result<Tasks, Error> {
        if wanted == 0 {
            return Err(Error::Parameter);
        }
        let mut tasks = Tasks {
            shape,
            cuts: [(Axis::Batch, 1); 4],
            unit: 1,
        };
        let mut left = wanted;
        let mut cuts = tasks.cuts.iter_mut();
        let mut cut = |axis, len: usize| {
            let parts = len.min(left).max(1);
            left /= parts;
            if let Some(to) = cuts.next() {
                *to = (axis, parts);
            }
            left
        };
        let outermost = |among: [bool; 3]| {
            (0..3).zip(among).find_map(|(axis, there)| {
                let fits = |layout: &&Layout| layout.outermost(axis, among);
                (there && layouts.iter().flatten().all(fits)).then_some(axis)
            })
        };
        // Axes of one entry are no axes, and one that is cut is none to those inside of it.
        let nothing = Task::all(&shape).is_empty();
        let entries = |axis: usize| {
            layouts
                .iter()
                .flatten()
                .filter_map(move |layout| layout.shape().get(axis).copied())
        };
        let mut uncut = [0, 1, 2].map(|axis| !nothing && entries(axis).any(|len| len > 1));
        let (mut group, mut wanted) = (shape.group(), wanted);
        while let Some(axis) = outermost(uncut) {
            match (axis, grain.panel) {
                (0, _) => wanted = cut(Axis::Batch, shape.batch),
                (1, _) => {
                    cut(Axis::KvHeads, shape.kv_heads);
                    if group > 1 && !grain.group {
                        break;
                    }
                    wanted = cut(Axis::Group, group);
                    group = 1;
                }
                (_, None) => break,
                (_, Some(panel)) => {
                    let units = |unit: usize| shape.queries.div_ceil(unit.max(1));
                    let mut unit = whole_rows(panel.saturating_mul(PANELS), group);
                    if units(unit) < wanted {
                        unit = whole_rows(panel, group);
                    }
                    cut(Axis::Queries, units(unit));
                    tasks.unit = unit;
                    // Several rows to a part: what lies inside of rows is not in one piece.
                    break;
                }
            }
            for (i, uncut) in uncut.iter_mut().enumerate() {
                *uncut &= i != axis;
            }
        }
        Ok(tasks)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        // At most what was wanted.
        self.cuts.iter().fold(1, |n, (_, parts)| n.saturating_mul(*parts))
    }

    /// The elements of an output from the first to one past the last that task `index` writes.
    pub(crate) fn elements(&self, index: usize, layout: &Layout) -> Range<usize> {
        if index >= self.count() {
            return 0..0;
        }
        self.get(index).elements(&self.shape, layout)
    }

    /// Task `index`; one without rows beyond the last.
    pub(super) fn get(&self, index: usize) -> Task {
        let mut task = Task::all(&self.shape);
        let (mut rest, mut below) = (index, self.count());
        if index >= below {
            task.batch = 0..0;
            return task;
        }
        for (axis, parts) in self.cuts {
            below /= parts.max(1);
            let part = rest / below.max(1);
            rest %= below.max(1);
            let (range, unit) = match axis {
                Axis::Batch => (&mut task.batch, 1),
                Axis::KvHeads => (&mut task.kv_heads, 1),
                Axis::Group => (&mut task.group, 1),
                Axis::Queries => (&mut task.queries, self.unit),
            };
            if parts > 1 {
                *range = piece(range.end, unit, parts, part);
            }
        }
        task
    }
}

/// Fewest rows whose `group` heads fill panels of so many lanes to the last one.
fn whole_rows(lanes: usize, group: usize) -> usize {
    let (mut divisor, mut rest) = (lanes.max(1), group);
    while let Some(next) = divisor.checked_rem(rest) {
        (divisor, rest) = (rest, next);
    }
    lanes.checked_div(divisor).unwrap_or(1).max(1)
}

/// Part `part` of `parts` of `0..len`, all but the last ending at multiples of `unit`.
fn piece(len: usize, unit: usize, parts: usize, part: usize) -> Range<usize> {
    let (units, parts) = (len.div_ceil(unit.max(1)), parts.max(1));
    let border = |part: usize| {
        let units = (units / parts) * part + part.min(units % parts);
        units.saturating_mul(unit).min(len)
    };
    border(part)..border(part.saturating_add(1))
}

/// What a call writes: views of memory, all of which can be cut in two.
pub trait Split: Default {
    /// What lies before the cut, and what lies from there on.
    fn split(self, cut: &Cut) -> (Self, Self);
}

/// Where one task ends and the next begins.
#[derive(Debug)]
pub struct Cut {
    tasks: Tasks,
    /// The next.
    index: usize,
}

impl Cut {
    /// The two parts of an output, if there is one.
    pub(super) fn apply<'a>(&self, output: Option<TensorMut<'a, f32>>) -> [Option<TensorMut<'a, f32>>; 2] {
        let split = |t: TensorMut<'a, f32>| {
            let elements = self.tasks.elements(self.index, t.layout());
            t.split_before(elements.start)
        };
        let (before, after) = output.map(split).unzip();
        [before, after]
    }
}

/// A share of the work of a call, with the outputs that it writes and nobody else does: the whole at first, then as many
/// parts as [`split_at`](Share::split_at) makes of it.
///
/// It comes from [`Exact::share`](super::Exact::share), [`Decode::share`](super::Decode::share) or
/// [`Gradient::share`](super::Gradient::share), and `T` is what they write: [`Outputs`](super::Outputs) or
/// [`Gradients`](super::Gradients). Give every share to a thread of yours, with scratch of its own and the `run_share` of
/// its plan. The bits are those of one call, in any number of shares and any order.
///
/// ```
/// use subquad::attention::{Exact, Outputs, Shape};
/// use subquad::{Error, Scratch, TensorMut, TensorRef};
/// # fn main() -> Result<(), Error> {
/// let shape = Shape { query_heads: 4, kv_heads: 4, ..Shape::head(100, 100, 8, 8) };
/// let x: Vec<f32> = (0..3200).map(|i| (i % 13) as f32).collect();
/// let x = TensorRef::new(&x, [1, 4, 100, 8])?;
/// let plan = Exact::new(shape)?;
/// let mut out = vec![0.0; 3200];
/// let outputs = Outputs { out: Some(TensorMut::new(&mut out, [1, 4, 100, 8])?), ..Outputs::default() };
/// let (one, other) = plan.share(outputs, 2)?.split_at(1);
/// let run = |share| {
///     let mut work = vec![core::mem::MaybeUninit::uninit(); plan.need().bytes()];
///     plan.run_share(x, x, x, share, &mut Scratch::new(&mut work))
/// };
/// let report = std::thread::scope(|scope| {
///     let other = scope.spawn(|| run(other));
///     Ok::<_, Error>(run(one)?.and(other.join().unwrap()?))
/// })?;
/// assert_eq!(report.masked_rows, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Share<T> {
    tasks: Tasks,
    /// The tasks of this share.
    range: Range<usize>,
    outputs: T,
}

impl<T> Share<T> {
    /// All of the work.
    pub(super) fn whole(tasks: Tasks, outputs: T) -> Self {
        let range = 0..tasks.count();
        Share { tasks, range, outputs }
    }

    /// One task, with outputs that reach over what it writes; nothing beyond the last task.
    #[cfg(feature = "capi")]
    pub(crate) fn task(tasks: Tasks, index: usize, outputs: T) -> Self {
        let end = tasks.count().min(index.saturating_add(1));
        let range = index..end;
        Share { tasks, range, outputs }
    }

    /// How many tasks it has: into so many shares it can be split.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Runs the tasks one after the other, for a plan of this shape; [`Error::Shape`] if the work is another's.
    pub(super) fn each(
        mut self,
        shape: &Shape,
        mut run: impl FnMut(&Task, &mut T) -> Result<Report, Error>,
    ) -> Result<Report, Error> {
        if self.tasks.shape != *shape {
            return Err(Error::Shape);
        }
        let mut run = |index| run(&self.tasks.get(index), &mut self.outputs);
        // Without a task, arguments are still those of a call.
        let mut report = run(self.range.next().unwrap_or(usize::MAX))?;
        for index in self.range {
            report = report.and(run(index)?);
        }
        Ok(report)
    }
}

impl<T: Split> Share<T> {
    /// The first `tasks` tasks (all if there are fewer), and the rest.
    #[must_use]
    pub fn split_at(self, tasks: usize) -> (Self, Self) {
        let Range { start, end } = self.range;
        let middle = start.saturating_add(tasks).min(end);
        let (a, b) = if middle == end {
            (self.outputs, T::default())
        } else if middle == start {
            (T::default(), self.outputs)
        } else {
            let tasks = self.tasks;
            self.outputs.split(&Cut { tasks, index: middle })
        };
        let part = |range, outputs| Share {
            tasks: self.tasks,
            range,
            outputs,
        };
        (part(start..middle, a), part(middle..end, b))
    }
}
