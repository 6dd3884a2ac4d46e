//! What is known of ONNX's operators: which make a size of values, and which can end the process.

/// Operators that take a size from the values of these inputs.
pub(super) const SIZED_BY: &[(&str, &[usize])] = &[
    ("Reshape", &[1]),
    ("Expand", &[1]),
    ("Tile", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("Range", &[0, 1, 2]),
    ("Slice", &[1, 2, 3, 4]),
    ("DynamicSlice", &[1, 2, 3, 4]),
    ("Pad", &[1, 3]),
    ("Resize", &[1, 2, 3]),
    ("Upsample", &[1]),
    ("TopK", &[1]),
    ("OneHot", &[1]),
    ("Split", &[1]),
    ("SplitToSequence", &[1]),
    ("Squeeze", &[1]),
    ("Unsqueeze", &[1]),
    ("ReduceSum", &[1]),
    ("ReduceMean", &[1]),
    ("ReduceMax", &[1]),
    ("ReduceMin", &[1]),
    ("ReduceProd", &[1]),
    ("ReduceL1", &[1]),
    ("ReduceL2", &[1]),
    ("ReduceLogSum", &[1]),
    ("ReduceLogSumExp", &[1]),
    ("ReduceSumSquare", &[1]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("MaxUnpool", &[2]),
    ("AffineGrid", &[1]),
    ("HannWindow", &[0]),
    ("HammingWindow", &[0]),
    ("BlackmanWindow", &[0]),
    ("MelWeightMatrix", &[0, 1, 2, 3, 4]),
    ("STFT", &[1, 3]),
    ("DFT", &[1, 2]),
    ("Compress", &[1]),
    ("SequenceAt", &[1]),
    ("SequenceErase", &[1]),
    ("SequenceInsert", &[2]),
    ("CropAndResize", &[3]),
];

/// Operators whose results are as large as their inputs' values make them.
pub(super) const SIZED_BY_ALL: &[&str] = &[
    "NonZero",
    "Unique",
    "NonMaxSuppression",
    "StringSplit",
    "StringNormalizer",
    "ImageDecoder",
    "Tokenizer",
    "BeamSearch",
    "GreedySearch",
    "Sampling",
    "WhisperBeamSearch",
];

/// Operators whose results have a size of their own, whatever comes in.
pub(super) const SIZED_BY_NONE: &[&str] = &["TfIdfVectorizer"];

/// Inputs of [`SIZED_BY`] where more means less: what is left begins there.
pub(super) const LEAVES_LESS: &[(&str, &[usize])] = &[
    ("Slice", &[1]),
    ("DynamicSlice", &[1]),
    ("Range", &[0]),
    ("STFT", &[3]),
    ("SequenceAt", &[1]),
    ("SequenceErase", &[1]),
    ("SequenceInsert", &[2]),
];

/// Inputs with which the data is compared by its size: what leaves less where they are larger.
pub(super) const WINDOWS: &[(&str, &[usize])] = &[
    ("Conv", &[1]),
    ("ConvInteger", &[1]),
    ("DeformConv", &[1]),
    ("FusedConv", &[1]),
    ("NhwcConv", &[1]),
    ("QLinearConv", &[3]),
    ("STFT", &[2]),
];

/// Operators that may make nothing of something, where it is too small for them.
pub(super) const SHRINKS: &[&str] = &[
    "AveragePool",
    "CenterCropPad",
    "Col2Im",
    "Compress",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "DeformConv",
    "DynamicSlice",
    "FusedConv",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "NhwcConv",
    "NhwcMaxPool",
    "Pad",
    "QLinearAveragePool",
    "QLinearConv",
    "Resize",
    "STFT",
    "Slice",
    "SpaceToDepth",
    "Split",
    "SplitToSequence",
    "Upsample",
];

/// Operators whose results grow with their inputs, where these are sizes.
pub(super) const GROWS: &[&str] = &[
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Expand",
    "Flatten",
    "Floor",
    "Identity",
    "Max",
    "Min",
    "Mul",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Round",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sum",
    "Transpose",
    "Unsqueeze",
];

/// Operators of which that holds where only the first input is a size.
pub(super) const GROWS_WITH_FIRST: &[&str] = &["Div", "Gather", "GatherElements", "GatherND", "Slice", "Sub"];

/// Operators whose results are below 0 only if numbers in their first inputs are.
pub(super) const SIGNED_WITH_FIRST: &[&str] = &[
    "Cast",
    "Ceil",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Round",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Operators that can end the process where a size is 0; [`super::sizes`] knows which size.
pub(super) const FATAL: &[&str] = &["ConvTranspose", "GRU", "InstanceNormalization", "LSTM", "RNN", "STFT", "Unique"];

/// Domains whose operators are known here.
pub(super) const DOMAINS: [&str; 5] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];
