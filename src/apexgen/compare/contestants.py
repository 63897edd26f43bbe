"""Who takes part: every objective in its paper's setting, and the controls that say what APEX is made of."""

from apexgen.compare.contest import Contestant
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

CONTESTANTS: dict[str, Contestant] = {
    "flow_matching": Contestant(FlowMatching()),
    "consistency": Contestant(Consistency(stage_steps=300), renoises=True),
    "consistency-continuous": Contestant(Consistency(form="continuous"), renoises=True),
    "lcm": Contestant(Lcm(guidance=1.0), renoises=True),
    "progressive": Contestant(Progressive(stage_steps=1200)),
    "ctm": Contestant(Ctm()),
    "mean_flow": Contestant(MeanFlow()),
    "shortcut": Contestant(Shortcut()),
    "rcgm": Contestant(Rcgm()),
    "twin_flow": Contestant(TwinFlow()),
    "twin_flow-condition": Contestant(TwinFlow(told_by="condition")),
    "dmd": Contestant(Dmd()),
    "dmd-plain": Contestant(Dmd(normalise=False)),
    "ladd": Contestant(Ladd(), renoises=True),
    "sana_sprint": Contestant(SanaSprint(), renoises=True),
    "ddo": Contestant(Ddo()),
    "apex": Contestant(Apex()),
    "apex-data": Contestant(Apex(anchor="data")),
    "apex-no-shift": Contestant(Apex(shift_scale=1.0)),
    "apex-self": Contestant(Apex(anchor="data", real="student")),
    "apex-mix": Contestant(Apex(form="mix")),
}
