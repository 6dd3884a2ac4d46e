//! Maps from class to score, as ZipMap emits them, as tensors.

use inference::Data;
use ort::value::{DynMapValueType, MapValueTypeMarker, TensorElementType, Value, ValueType};

/// What is taken out of a value: its shape, its elements, and the classes if it was made of maps.
pub(super) type Taken = (Vec<i64>, Data, Option<Vec<String>>);

/// Maps as one tensor, a row for each.
pub(super) fn tensor(maps: &[Value<DynMapValueType>]) -> Result<Taken, String> {
    let rows = maps.iter().map(|map| match map.dtype() {
        ValueType::Map { key, value } => row(map, *key, *value),
        other @ (ValueType::Tensor { .. } | ValueType::Sequence(_) | ValueType::Optional(_)) => {
            Err(format!("{other} cannot be sent"))
        }
    });
    scores(&rows.collect::<Result<Vec<_>, _>>()?)
}

/// One map as a tensor of one row.
pub(super) fn single<M: MapValueTypeMarker + ?Sized>(
    map: &Value<M>,
    key: TensorElementType,
    value: TensorElementType,
) -> Result<Taken, String> {
    scores(&[row(map, key, value)?])
}

/// One row of scores: a class's name and its score.
type Row = Vec<(String, Score)>;

/// A score, which is single or double.
#[derive(Clone, Copy)]
enum Score {
    Single(f32),
    Double(f64),
}

fn row<M: MapValueTypeMarker + ?Sized>(
    map: &Value<M>,
    key: TensorElementType,
    value: TensorElementType,
) -> Result<Row, String> {
    let failed = |e: ort::Error| e.message().to_owned();
    let single = |(key, score): (String, f32)| (key, Score::Single(score));
    let double = |(key, score): (String, f64)| (key, Score::Double(score));
    #[allow(clippy::wildcard_enum_match_arm, reason = "ZipMap makes no other maps")]
    match (key, value) {
        (TensorElementType::Int64, TensorElementType::Float32) => {
            let pairs = map.try_extract_key_values::<i64, f32>().map_err(failed)?;
            Ok(pairs.into_iter().map(|(key, score)| single((key.to_string(), score))).collect())
        }
        (TensorElementType::String, TensorElementType::Float32) => {
            let pairs = map.try_extract_key_values::<String, f32>().map_err(failed)?;
            Ok(pairs.into_iter().map(single).collect())
        }
        (TensorElementType::Int64, TensorElementType::Float64) => {
            let pairs = map.try_extract_key_values::<i64, f64>().map_err(failed)?;
            Ok(pairs.into_iter().map(|(key, score)| double((key.to_string(), score))).collect())
        }
        (TensorElementType::String, TensorElementType::Float64) => {
            let pairs = map.try_extract_key_values::<String, f64>().map_err(failed)?;
            Ok(pairs.into_iter().map(double).collect())
        }
        (key, value) => Err(format!("maps from {key} to {value} cannot be sent")),
    }
}

/// Rows of scores as one tensor `[rows, classes]`.
fn scores(rows: &[Row]) -> Result<Taken, String> {
    let labels: Vec<String> = rows.first().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let alike = |row: &Row| row.len() == labels.len() && row.iter().zip(&labels).all(|((key, _), label)| key == label);
    if !rows.iter().all(alike) {
        return Err("its rows have scores for different classes".to_owned());
    }
    let shape = [rows.len(), labels.len()].map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec();
    let all = || rows.iter().flatten().map(|(_, score)| *score);
    let data = if all().any(|score| matches!(score, Score::Double(_))) {
        Data::Fp64(
            all()
                .map(|score| match score {
                    Score::Single(score) => f64::from(score),
                    Score::Double(score) => score,
                })
                .collect(),
        )
    } else {
        Data::Fp32(
            all()
                .filter_map(|score| match score {
                    Score::Single(score) => Some(score),
                    Score::Double(_) => None,
                })
                .collect(),
        )
    };
    Ok((shape, data, Some(labels)))
}
