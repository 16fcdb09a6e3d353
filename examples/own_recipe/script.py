"""An ordinary training script: fit a noisy sine, on one machine, at one batch size."""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
x = 6 * torch.rand(2000, 1) - 3
y = torch.sin(x) + 0.1 * torch.randn_like(x)
train, test = (x[:1600], y[:1600]), (x[1600:], y[1600:])

model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for epoch in range(20):
    for indices in torch.randperm(1600).split(32):
        loss = functional.mse_loss(model(train[0][indices]), train[1][indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, functional.mse_loss(model(test[0]), test[1]).item())
