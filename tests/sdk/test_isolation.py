"""What cannot be put in force is told by object, and refused beforehand where the device has said what it cannot do."""

import json

from helpers import apply, gateway, report


def test_an_object_that_is_not_in_force(api, agent):
    """State of TaskStates: document 000, lines 25502 to 25527."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    report(agent, sag, sns[0])
    api.call("ModifySagWanSnat", Snat="ENABLE", **device)
    odd = [{"Section": "Lan", "Object": "port 1", "Effect": "partial", "Reason": "no network device"}]
    apply(agent, sag, sns[0], Deviations=json.dumps(odd))
    task = api.call("DescribeSagLanList", **device)["TaskStates"][0]
    assert (task["State"], task["ErrorCode"]) == ("HardwareError", "500")
    assert task["ErrorMessage"] == "port 1 is put in force in part: no network device"
    assert api.call("DescribeSagWanSnat", **device)["TaskStates"][0]["State"] == "Succeed"
    assert api.call("DescribeSAGDeviceInfo", **device)["SynStatus"] == "Synchronized"
    apply(agent, sag, sns[0], Deviations="[]")
    assert api.call("DescribeSagLanList", **device)["TaskStates"][0]["State"] == "Succeed"


def test_what_a_device_cannot_do_is_refused(api, agent):
    """FeatureNotSupport, Sag.PortNotExist: not before the device has said what it has."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    acl = api.call("CreateACL", Name="applications")["AclId"]
    rule = dict(AclId=acl, Direction="out", Policy="drop", IpProtocol="ALL", SourceCidr="10.0.0.0/8", DestCidr="0.0.0.0/0",
                SourcePortRange="-1/-1", DestPortRange="-1/-1", Priority=1, DpiSignatureIds=["1"])
    api.call("AddACLRule", **rule)
    report(agent, sag, sns[0], Capabilities=["Acl"], WiredPorts=["0", "1"])
    api.refused("AssociateACL", "FeatureNotSupport", AclId=acl, SmartAGId=sag)
    api.refused("ModifySagPortRole", "Sag.PortNotExist", PortName="4", Role="LAN", **device)
    api.call("ModifySagPortRole", PortName="4", Role="NONE", **device)
    api.refused("CreateSagStaticRoute", "Sag.PortNotExist", PortName="3", Vlan="0", DestinationCidr="10.5.0.0/16",
                NextHop="10.9.0.2", **device)
