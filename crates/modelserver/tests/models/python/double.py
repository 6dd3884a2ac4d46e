from modelway import AbstractModel, Tensor


class Double(AbstractModel):
    def predict(self, x: Tensor["FP32", -1, 2]) -> Tensor["FP32", -1, 2]:
        return x * 2
