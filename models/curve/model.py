"""The sine of a number, by a small PyTorch network. It has no requirements.txt: PyTorch comes with the interpreter."""

import math

import torch
from modelway import AbstractModel, Tensor


class Curve(AbstractModel):
    def load(self):
        torch.set_num_threads(1)
        self.network = network()
        self.network.load_state_dict(torch.load(self.folder / "curve.pt"))
        self.network.eval()

    def predict(self, x: Tensor["FP32", -1, 1]) -> Tensor["FP32", -1, 1]:
        with torch.inference_mode():
            return self.network(torch.from_numpy(x.copy()))

    def train(self, steps=600):
        torch.manual_seed(7)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = data(256)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        torch.save(model.state_dict(), self.folder / "curve.pt")
        return {"loss": loss.item()}

    def eval(self):
        x, y = data(101)
        return {"worst": float((self.network(x) - y).abs().max())}


def network():
    return torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def data(points):
    x = torch.linspace(-math.pi, math.pi, points).reshape(-1, 1)
    return x, torch.sin(x)
