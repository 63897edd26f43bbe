"""Every objective, in the settings that change its terms: a new one joins all tests by a line here."""

from apexgen.objectives.apex import Apex
from apexgen.objectives.consistency import Consistency
from apexgen.objectives.ctm import Ctm
from apexgen.objectives.ddo import Ddo
from apexgen.objectives.dmd import Dmd
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.objectives.ladd import Ladd
from apexgen.objectives.lcm import Lcm
from apexgen.objectives.mean_flow import MeanFlow
from apexgen.objectives.progressive import Progressive
from apexgen.objectives.rcgm import Rcgm
from apexgen.objectives.sana_sprint import SanaSprint
from apexgen.objectives.shortcut import Shortcut
from apexgen.objectives.twin_flow import TwinFlow

SETTINGS = {
    "flow_matching": FlowMatching(),
    "kl": Apex(warmup=0),
    "kl warm-up": Apex(warmup=10),
    "kl with pairs": Apex(warmup=0, pair_steps=3),
    "kl held": Apex(warmup=0, redraw=False),
    "kl guided": Apex(warmup=0, guidance=2.0),
    "kl guided near data": Apex(warmup=0, guidance=2.0, guidance_until=0.5),
    "kl data": Apex(warmup=0, anchor="data"),
    "kl no fake": Apex(warmup=0, fake_weight=0.0),
    "kl another prompt": Apex(warmup=0, fake_told="other"),
    "kl ema": Apex(warmup=0, anchor="data", real="ema"),
    "kl student": Apex(warmup=0, anchor="data", real="student"),
    "mix": Apex(form="mix"),
    "mix fake gradient": Apex(form="mix", fake_gradient=True),
    "consistency": Consistency(),
    "consistency on data": Consistency(real="data"),
    "consistency in phases": Consistency(phases=4),
    "sCM": Consistency(form="continuous", tangent_warmup=1),
    "sCM by differences": Consistency(form="continuous", difference=1e-3),
    "lcm": Lcm(),
    "progressive": Progressive(),
    "progressive, a later stage": Progressive(stage_steps=1),
    "progressive guided": Progressive(guidance=2.0),
    "ctm": Ctm(),
    "ctm on data": Ctm(real="data", solver_steps=3),
    "dmd": Dmd(warmup=0),
    "dmd warm-up": Dmd(),
    "dmd plain": Dmd(warmup=0, normalise=False, guidance=2.0),
    "dmd with pairs": Dmd(warmup=0, pair_steps=3, pair_share=0.5),
    "dmd guided near data": Dmd(warmup=0, guidance=2.0, guidance_until=0.5),
    "ddo": Ddo(),
    "ddo against itself": Ddo(round_steps=1, alpha=2.0),
    "ladd": Ladd(),
    "ladd in steps": Ladd(steps=4, r1=0.0),
    "sana_sprint": SanaSprint(tangent_warmup=1),
    "mean_flow": MeanFlow(),
    "mean_flow on data": MeanFlow(real="data", equal_share=0.0),
    "rcgm": Rcgm(),
    "shortcut": Shortcut(),
    "twin_flow": TwinFlow(),
    "twin_flow by condition": TwinFlow(told_by="condition", guidance=2.0),
}
