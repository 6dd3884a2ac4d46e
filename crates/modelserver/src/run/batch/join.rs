//! Joins the rows of several requests into the inputs of one run, and splits its outputs.
//!
//! Only requests that differ only in their rows are joined: see [`alike`]. Each tensor is one allocation and one range
//! copy per request. A run whose answer does not have exactly the number of given rows is refused as a whole, because
//! nobody could assign the rows.

use inference::{Data, Tensor};

use super::Job;
use crate::runtime::{RuntimeError, is_absent};

/// The number of rows of all given inputs of a request. `None`: there are none, or their numbers differ.
pub(crate) fn rows_of(inputs: &[Tensor]) -> Option<usize> {
    let mut rows = inputs.iter().filter(|input| !is_absent(input)).map(|input| input.shape.first().copied());
    let first = rows.next()??;
    if first < 1 || rows.any(|other| other != Some(first)) {
        return None;
    }
    usize::try_from(first).ok()
}

/// Whether the rows of two jobs can run together.
pub(crate) fn alike(a: &Job, b: &Job) -> bool {
    let same_but_for_rows = |(a, b): (&Tensor, &Tensor)| {
        a.shape.get(1..) == b.shape.get(1..)
            && a.shape.len() == b.shape.len()
            && a.datatype() == b.datatype()
            && is_absent(a) == is_absent(b)
    };
    a.inputs.len() == b.inputs.len()
        && a.inputs.iter().zip(&b.inputs).all(same_but_for_rows)
        && a.parameters == b.parameters
        && a.input_parameters == b.input_parameters
}

/// The inputs of one run of all `jobs`, which are [`alike`] and have `rows` rows in total.
pub(crate) fn join(jobs: &[Job], rows: usize) -> Option<Vec<Tensor>> {
    let first = jobs.first()?;
    let one = |(place, input): (usize, &Tensor)| {
        if is_absent(input) {
            return Some(input.clone());
        }
        let parts = || jobs.iter().map(|job| &job.inputs[place].data);
        let mut data = input.data.empty_like();
        data.reserve(parts().map(Data::len).sum());
        for part in parts() {
            data.append(part, 0..part.len()).then_some(())?;
        }
        let mut shape = input.shape.clone();
        *shape.first_mut()? = i64::try_from(rows).ok()?;
        Some(Tensor { name: input.name.clone(), shape, data })
    };
    first.inputs.iter().enumerate().map(one).collect()
}

/// The positions of all outputs that any of `jobs` requests, ascending.
pub(crate) fn wanted(jobs: &[Job]) -> Vec<usize> {
    let Some(first) = jobs.first() else { return Vec::new() };
    let mut all = first.outputs.to_vec();
    if jobs.iter().any(|job| job.outputs != first.outputs) {
        all.extend(jobs.iter().skip(1).flat_map(|job| job.outputs.iter().copied()));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether a run returned as many rows as it got.
pub(crate) fn check_rows(outputs: &[Tensor], rows: usize) -> Result<(), RuntimeError> {
    for output in outputs {
        let made = output.shape.first().copied();
        if made.and_then(|made| usize::try_from(made).ok()) != Some(rows) || output.check_shape().is_err() {
            let name = &output.name;
            return Err(RuntimeError::Failed(match made {
                Some(made) => format!(
                    "the model returned the wrong number of rows: output `{name}` has {made} for the {rows} that \
                     went in"
                ),
                None => format!(
                    "the model returned the wrong number of rows: output `{name}` has none for the {rows} that went in"
                ),
            }));
        }
    }
    Ok(())
}

/// The requested outputs of one job, `rows` of them from row `from` on. `made` are the outputs at the positions
/// `places`, and passed [`check_rows`].
pub(crate) fn part(
    made: &[Tensor],
    places: &[usize],
    wanted: &[usize],
    from: usize,
    rows: usize,
) -> Option<Vec<Tensor>> {
    let one = |place: &usize| {
        let output = made.get(places.binary_search(place).ok()?)?;
        let width: usize = width(output)?;
        let mut data = output.data.empty_like();
        data.append(&output.data, from * width..(from + rows) * width).then_some(())?;
        // Missing values in other rows must not affect these rows.
        if let Data::Json(json) = &data
            && let Some(plain) = json.without_null()
        {
            data = plain;
        }
        let mut shape = output.shape.clone();
        *shape.first_mut()? = i64::try_from(rows).ok()?;
        Some(Tensor { name: output.name.clone(), shape, data })
    };
    wanted.iter().map(one).collect()
}

/// Elements per row.
fn width(output: &Tensor) -> Option<usize> {
    inference::element_count(output.shape.get(1..)?).ok()
}
