"""The kinds of numbers, and the policy that says which may be called."""

from __future__ import annotations

import pytest

from app.carrier.number_policy import (
    COSTLY,
    DialPolicy,
    NumberClass,
    NumberKind,
    classify,
    countries_of,
)

K = NumberKind
HOME = frozenset({"US"})

# address: its kind, its country, and the number that it is, as seen from the United States.
NUMBERS: dict[str, tuple[NumberKind, str, str]] = {
    **{f"+{digits}": (K.ORDINARY, region, f"+{digits}") for digits, region in {
        "14155550123": "US", "12125550100": "US", "15551234567": "US", "15005550006": "US",
        "15335551234": "US", "14165550123": "CA", "18765550123": "JM", "18095551234": "DO",
        "18685551234": "TT", "12425551234": "BS", "14415551234": "BM", "12845551234": "VG",
        "16715551234": "GU", "17875551234": "PR", "442079460000": "GB", "447781123456": "GG",
        "441534123456": "JE", "441624123456": "IM", "4930123456": "DE", "4915112345678": "DE",
        "41445550100": "CH", "41791234567": "CH", "33142685300": "FR", "33612345678": "FR",
        "390612345678": "IT", "34911234567": "ES", "61291234567": "AU", "819012345678": "JP",
        "8613812345678": "CN", "919812345678": "IN", "5511912345678": "BR", "27821234567": "ZA",
        "971501234567": "AE", "85291234567": "HK", "886912345678": "TW", "8801712345678": "BD",
        "8562012345678": "LA",
    }.items()},
    "+18005550123": (K.TOLL_FREE, "US", "+18005550123"),
    "+18885550123": (K.TOLL_FREE, "US", "+18885550123"),
    "+80012345678": (K.TOLL_FREE, "", "+80012345678"),
    **{f"+{digits}": (K.PREMIUM, region, f"+{digits}") for digits, region in {
        "19005550100": "US", "448719000000": "GB", "449098790000": "GB", "499001234567": "DE",
        "41900123456": "CH", "33899123456": "FR", "34806123456": "ES", "611900123456": "AU",
        "81990123456": "JP", "979123456789": "",
    }.items()},
    **{f"+{digits}": (K.SHARED_COST, region, f"+{digits}") for digits, region in {
        "491801234567": "DE", "41848123456": "CH", "33810123456": "FR", "611300123456": "AU",
        "8081234567": "",
    }.items()},
    **{f"+{digits}": (K.SATELLITE, "", f"+{digits}") for digits in (
        "870773123456", "8816123456", "88161234567")},
    **{f"+{digits}": (K.WORLDWIDE, "", f"+{digits}") for digits in (
        "8821612345678", "883510001234567", "88812345678")},
    "+87812345678901": (K.PERSONAL, "", "+87812345678901"),
    "+447012345678": (K.PERSONAL, "GB", "+447012345678"),
    "+4970012345678": (K.PERSONAL, "DE", "+4970012345678"),
    "+447640123456": (K.PAGER, "GB", "+447640123456"),
    **dict.fromkeys(("911", "112", "+1911", "+44999", "+44112", "+49112", "+49110", "+61000",
                     "sip:911@pbx.example.com", "sip:112@pbx.example.com", "sip:+1911@trunk",
                     "tel:911"), (K.EMERGENCY, "", "")),
    **dict.fromkeys(("1234", "40404", "000000"), (K.SHORT_CODE, "", "")),
    **dict.fromkeys(("+9990000000", "+2101234567", "+8891234567", "+8841234567", "+1415555",
                     "+141555501234", "+1", "+0123456789", "+140404", "hello", "+1415555012x",
                     "+14155550123,,9", "+14155550123w9", "+14155550123x12", "+1 415 555 0123",
                     "12345678901234567890", "+\uff11\uff14155550123", "\u0660\u0661" * 6,
                     "+14155550123\n+19005550100"), (K.INVALID, "", "")),
    # Without a country code: as they are dialed at home, or with the codes for abroad.
    "4155550123": (K.ORDINARY, "US", "+14155550123"),
    "14155550123": (K.ORDINARY, "US", "+14155550123"),
    "0014155550123": (K.ORDINARY, "US", "+14155550123"),
    "00442079460000": (K.ORDINARY, "GB", "+442079460000"),
    **dict.fromkeys(("9005550100", "19005550100", "0019005550100", "01119005550100",
                     "tel:+19005550100", "tel:+1-900-555-0100", "sip:+19005550100@trunk",
                     "sips:+19005550100@trunk", "SIP:+19005550100@trunk",
                     "sip:%2B19005550100@trunk", "sip:%2b1%39005550100@trunk",
                     "sip:+1-900-555-0100@trunk", "sip:+1.900.555.0100@trunk",
                     "sip:(900)5550100@trunk", "sip:9005550100@trunk", "sip:19005550100@trunk",
                     "sip:0019005550100@trunk", "sip:01119005550100@trunk",
                     "sip:*6719005550100@trunk", "sip:*67,19005550100@trunk",
                     "sip:9,19005550100@trunk",
                     "sip:19005550100!@trunk", "sip:*31%2319005550100@trunk",
                     "sip:#31#19005550100@trunk",
                     "sip:+19005550100;phone-context=x@trunk", "sip:+19005550100:pw@trunk:5061",
                     ), (K.PREMIUM, "US", "+19005550100")),
    **dict.fromkeys(("sip:+870773123456@trunk", "sip:00870773123456@trunk",
                     "sip:870773123456@trunk", "sip:011870773123456@trunk",
                     ), (K.SATELLITE, "", "+870773123456")),
    **dict.fromkeys(("sip:4155550123@trunk", "sip:+14155550123@trunk", "tel:+1-415-555-0123",
                     ), (K.ORDINARY, "US", "+14155550123")),
    "sip:+442079460000@trunk": (K.ORDINARY, "GB", "+442079460000"),
    **dict.fromkeys(("sip:anna@pbx.example.com", "SIP:1001@pbx", "sip:pbx.example.com",
                     "sip:1234567@pbx", "sip:*98@pbx", "sip:*98*1001@pbx",
                     "sip:anna*19005550100@pbx",
                     ), (K.SIP, "", "")),
    "sip:+1415555@trunk": (K.INVALID, "", ""),
    **dict.fromkeys(("client:anna", "client:+14155550123"), (K.CLIENT, "", "")),
    **dict.fromkeys(("anonymous", "Unknown", "+266696687", "", "+",
                     "sip:anonymous@anonymous.invalid"), (K.WITHHELD, "", "")),
}  # fmt: skip


@pytest.mark.parametrize(("address", "expected"), NUMBERS.items())
def test_an_address_has_a_kind_a_country_and_a_number(
    address: str, expected: tuple[NumberKind, str, str]
) -> None:
    found = classify(address, HOME)
    assert (found.kind, found.region, found.number) == expected
    assert found.reason.split()[0] in ("is", "has")


@pytest.mark.parametrize("address", NUMBERS)
def test_the_policy_of_one_country_lets_its_ordinary_numbers_through_and_no_others(
    address: str,
) -> None:
    kind, region, number = NUMBERS[address]
    is_sip = address.lower().startswith("sip")
    allowed = kind is K.SIP or (
        kind in (K.ORDINARY, K.TOLL_FREE) and region == "US" and (is_sip or address == number)
    )
    assert (DialPolicy(HOME).fault(address) is None) == allowed


@pytest.mark.parametrize("kind", sorted(COSTLY))
def test_a_policy_may_allow_a_costly_kind_by_itself(kind: NumberKind) -> None:
    found = NumberClass(kind=kind, reason="is costly", number="+1")
    assert DialPolicy().fault_of(found) == "is costly, which is not called from here"
    assert DialPolicy(costly=frozenset({kind})).fault_of(found) is None


def test_emergency_numbers_of_a_country_are_known_there() -> None:
    for number, country in {"999": "GB", "000": "AU", "110": "DE", "15": "FR", "119": "JP"}.items():
        assert classify(number, [country]).kind is K.EMERGENCY
        assert classify(f"sip:{number}@pbx", [country]).kind is K.EMERGENCY
        assert DialPolicy(home=frozenset({country})).fault(number) is not None
        assert classify(number, ["US"]).kind is K.SHORT_CODE


def test_of_two_home_countries_the_costly_reading_counts() -> None:
    # An ordinary number in one of them.
    assert classify("9005550100", ["US", "GB"]).kind is K.PREMIUM
    assert classify("07012345678", ["GB", "DE"]).kind is K.PERSONAL


def test_countries_are_those_of_numbers_that_have_one() -> None:
    numbers = ["+14155550123", "+18005550123", "+442079460000", "+870773123456", "nonsense"]
    assert countries_of(numbers) == {"US", "GB"}
    assert countries_of([]) == frozenset()
