//! The work of a call as data: tasks that write to disjoint memory, for whatever threads there are.

use super::block::PANELS;
use super::outputs::Outputs;
use super::Shape;
use crate::error::Error;
use crate::view::Layout;
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

    /// Batch entry, query head and query of the first row; in memory no row of the task comes before it.
    fn first(&self, shape: &Shape) -> [usize; 3] {
        let head = self.kv_heads.start.saturating_mul(shape.group());
        [
            self.batch.start,
            head.saturating_add(self.group.start),
            self.queries.start,
        ]
    }

    /// The same of the last row, after which none comes. For a task that has rows.
    fn last(&self, shape: &Shape) -> [usize; 3] {
        let before = |end: usize| end.saturating_sub(1);
        let head = before(self.kv_heads.end).saturating_mul(shape.group());
        let head = head.saturating_add(before(self.group.end));
        [before(self.batch.end), head, before(self.queries.end)]
    }

    fn is_empty(&self) -> bool {
        [&self.batch, &self.kv_heads, &self.group, &self.queries]
            .iter()
            .any(|range| range.is_empty())
    }
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
/// layouts, as many axes as they have in common. Rows are cut where blocks or panels end, so that none is left half full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks {
    shape: Shape,
    /// How many parts of which axis, outermost first. The product of the parts is the number of tasks.
    cuts: [(Axis, usize); 4],
    /// Rows are cut at multiples of this.
    unit: usize,
}

impl Tasks {
    /// At most `wanted` tasks of similar size, and at least one; [`Error::Parameter`] if none is wanted. `panel` is the
    /// lanes of a panel.
    pub(super) fn new(shape: Shape, layouts: &[Option<&Layout>], panel: usize, wanted: usize) -> Result<Tasks, Error> {
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
        let mut uncut = [shape.batch, shape.query_heads, shape.queries].map(|len| len > 1 && !nothing);
        let (mut group, mut wanted) = (shape.group(), wanted);
        while let Some(axis) = outermost(uncut) {
            match axis {
                0 => wanted = cut(Axis::Batch, shape.batch),
                1 => {
                    cut(Axis::KvHeads, shape.kv_heads);
                    wanted = cut(Axis::Group, group);
                    group = 1;
                }
                _ => {
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
        let ([.., cols], task) = (layout.shape(), self.get(index));
        if cols == 0 || task.is_empty() {
            return 0..0;
        }
        let (first, last) = (task.first(&self.shape), task.last(&self.shape));
        layout.element(first)..layout.element(last).saturating_add(cols)
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

/// A share of the work of a call, with the outputs that it writes and nobody else does: the whole at first, from
/// [`Exact::share`](super::Exact::share), then as many parts as [`split_at`](Share::split_at) makes of it.
///
/// Give every share to a thread of yours, with scratch of its own and [`Exact::run_share`](super::Exact::run_share). The
/// bits are those of one call, in any number of shares and any order.
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
pub struct Share<'o> {
    pub(super) tasks: Tasks,
    /// The tasks of this share.
    pub(super) range: Range<usize>,
    pub(super) outputs: Outputs<'o>,
}

impl<'o> Share<'o> {
    /// All of the work.
    pub(super) fn whole(tasks: Tasks, outputs: Outputs<'o>) -> Self {
        let range = 0..tasks.count();
        Share { tasks, range, outputs }
    }

    /// One task, with outputs that reach over what it writes; nothing beyond the last task.
    pub(crate) fn task(tasks: Tasks, index: usize, outputs: Outputs<'o>) -> Self {
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

    /// The first `tasks` tasks (all if there are fewer), and the rest.
    #[must_use]
    pub fn split_at(self, tasks: usize) -> (Self, Self) {
        let Range { start, end } = self.range;
        let middle = start.saturating_add(tasks).min(end);
        let (a, b) = if middle == end {
            (self.outputs, Outputs::default())
        } else {
            self.outputs
                .split_before(self.tasks.get(middle).first(&self.tasks.shape))
        };
        let part = |range, outputs| Share {
            tasks: self.tasks,
            range,
            outputs,
        };
        (part(start..middle, a), part(middle..end, b))
    }

    /// What was asked for when the work was shared out.
    pub(super) const fn shape(&self) -> &Shape {
        &self.tasks.shape
    }
}
