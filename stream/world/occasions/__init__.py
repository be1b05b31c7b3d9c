"""Benign look-alikes: what good customers do that resembles an attack. Each is a function from a raid (time,
place, size) to good transactions. `LOOKS_LIKE` says which attack each one is easily taken for."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stream.world.occasions.crowds import (
    donation_drive,
    flash_sale,
    remittance_day,
    shared_tablet,
    subscription_burst,
    trial_verification,
    viral_terminal,
)
from stream.world.occasions.shoppers import (
    business_trip,
    capped_purchaser,
    gift_card_run,
    holiday_spree,
    house_move,
    new_phone,
    renovation,
    serial_returner,
)
from stream.world.raid import Raid
from stream.world.rows import Rows
from stream.world.vocabulary import ATTACKS, LOOKALIKES

Occasion = Callable[[Raid], Rows]

OCCASION_OF: Mapping[str, Occasion] = MappingProxyType(
    {
        "donation_drive": donation_drive,
        "trial_verification": trial_verification,
        "new_phone": new_phone,
        "holiday_spree": holiday_spree,
        "business_trip": business_trip,
        "house_move": house_move,
        "remittance_day": remittance_day,
        "renovation": renovation,
        "serial_returner": serial_returner,
        "capped_purchaser": capped_purchaser,
        "viral_terminal": viral_terminal,
        "shared_tablet": shared_tablet,
        "flash_sale": flash_sale,
        "subscription_burst": subscription_burst,
        "gift_card_run": gift_card_run,
    }
)
assert tuple(OCCASION_OF) == LOOKALIKES

LOOKS_LIKE: Mapping[str, str] = MappingProxyType(
    {
        "donation_drive": "card_testing",
        "trial_verification": "card_testing",
        "new_phone": "account_takeover",
        "holiday_spree": "card_spree",
        "business_trip": "card_spree",
        "house_move": "mule_chain",
        "remittance_day": "mule_chain",
        "renovation": "bust_out",
        "serial_returner": "refund_abuse",
        "capped_purchaser": "threshold_probing",
        "viral_terminal": "merchant_collusion",
        "shared_tablet": "device_ring",
        "flash_sale": "bot_velocity",
        "subscription_burst": "bot_velocity",
        "gift_card_run": "account_takeover",
    }
)
assert set(LOOKS_LIKE.values()) == set(ATTACKS)
