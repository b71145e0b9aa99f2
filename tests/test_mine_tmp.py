import sys; sys.path.insert(0,"/work/main")
import quickstudy as q
from torch import nn
from tests import contract
from tests.contract import Case, smooth
from quickstudy.learners.leo import LEO
from quickstudy.learners.bayesian_maml import BayesianMAML
import quickstudy.saving as s
for c in (LEO,BayesianMAML): s._KNOWN[c.__name__]=c
settings = {"features": 5, "latent": 4, "inner_steps": 2, "finetune_steps": 2, "dropout": 0.0, "stochastic": False}
def curve(): return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
MINE={
    "leo": Case(lambda: LEO(smooth(), **settings)),
    "leo, backbone trained": Case(lambda: LEO(smooth(), backbone_frozen=False, mode="recompute", **settings)),
    "bayesian maml, sinusoid": Case(lambda: BayesianMAML(curve(), particles=3, inner_lr=0.05, learn_noise=True), regression=True, exact=False, query_loss=False),
    "bayesian maml, classes": Case(lambda: BayesianMAML(smooth(), particles=2, inner_lr=0.3, inner_steps=3), any_way=False, exact=False, query_loss=False),
    "bayesian maml, likelihood": Case(lambda: BayesianMAML(smooth(), particles=2, inner_lr=0.3, inner_steps=3, objective="likelihood"), any_way=False),
}
contract.CASES.clear(); contract.CASES.update(MINE)
from tests.test_contract import *
