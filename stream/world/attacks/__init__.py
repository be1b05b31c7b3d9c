"""The ten kinds of attack campaign; each is a function from a raid to its transactions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stream.world.attacks.accounts import account_takeover, bust_out, device_ring, refund_abuse
from stream.world.attacks.networks import merchant_collusion, mule_chain
from stream.world.attacks.stolen_cards import bot_velocity, card_spree, card_testing, threshold_probing
from stream.world.raid import Raid
from stream.world.rows import Rows
from stream.world.vocabulary import ATTACKS

Attack = Callable[[Raid], Rows]

ATTACK_OF: Mapping[str, Attack] = MappingProxyType(
    {
        "card_testing": card_testing,
        "account_takeover": account_takeover,
        "card_spree": card_spree,
        "mule_chain": mule_chain,
        "bust_out": bust_out,
        "refund_abuse": refund_abuse,
        "threshold_probing": threshold_probing,
        "merchant_collusion": merchant_collusion,
        "device_ring": device_ring,
        "bot_velocity": bot_velocity,
    }
)
assert tuple(ATTACK_OF) == ATTACKS
