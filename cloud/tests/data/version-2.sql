BEGIN TRANSACTION;
CREATE TABLE access_keys (
        id TEXT PRIMARY KEY,
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        secret TEXT NOT NULL,
        status TEXT NOT NULL,
        created BIGINT NOT NULL);
INSERT INTO "access_keys" VALUES('LTAIKd81K3aD3oDFfF2F3w7L',1181375973637612,'','ophazuSHKLGf2YHk8iqZYvV9i/sAig0IFHB7Uf5sicqlYeg3BPMIwCpbBwjrYg5iIxb/8hFBpDpkKQ==','Active',1795970698873);
CREATE TABLE accounts (
        uid BIGINT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created BIGINT NOT NULL);
INSERT INTO "accounts" VALUES(1181375973637612,'main',1795970698873);
CREATE TABLE audit (
        request_id TEXT PRIMARY KEY,
        at BIGINT NOT NULL,
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        key_id TEXT NOT NULL,
        source TEXT NOT NULL,
        action TEXT NOT NULL,
        params TEXT NOT NULL,
        code TEXT NOT NULL);
CREATE TABLE client_tokens (
        uid BIGINT NOT NULL,
        action TEXT NOT NULL,
        token TEXT NOT NULL,
        answer TEXT NOT NULL,
        expires BIGINT NOT NULL,
        PRIMARY KEY (uid, action, token));
CREATE TABLE devices (
        sn TEXT PRIMARY KEY,
        uid BIGINT NOT NULL,
        sag TEXT NOT NULL,
        revision BIGINT NOT NULL,
        applied BIGINT NOT NULL,
        failure TEXT NOT NULL,
        changed BIGINT NOT NULL,
        seen BIGINT NOT NULL,
        body TEXT NOT NULL,
        report TEXT NOT NULL);
INSERT INTO "devices" VALUES('sag0uc60979hruob',1181375973637612,'sag-7mdwdym88i186t7m72',12,0,'',1795970700213246,1795970699907,'{"CreateTime":1795970699024,"Ports":[{"PortName":"0","Role":"WAN","Status":"Down","Mac":""},{"PortName":"1","Role":"LAN","Status":"Down","Mac":""},{"PortName":"2","Role":"MGT","Status":"Down","Mac":""},{"PortName":"3","Role":"ECC","Status":"Down","Mac":""},{"PortName":"4","Role":"NONE","Status":"Down","Mac":""},{"PortName":"5","Role":"NONE","Status":"Down","Mac":""}],"Wan":{"0":{"IPType":"DHCP","Priority":10,"Weight":100}},"RouteProtocol":"STATIC","Snat":"ENABLE","Ha":{"Mode":"NONE"},"Slot":0,"SealedKey":"QeR1MIB6vyN4HseLP0SCHbfHIwvr8Do1YBuRPKcq0fRb6ItNu4NEq4ObEz7Nfl2oKG2pil0I+W4auNL5","Tasks":{"Snat":{"Revision":12,"CreateTime":1795970700180}}}','{"SoftwareVersion":"2.3.1","MonitorVersion":"1.2.0","DpiSignatureDbVersion":null,"IpsecStatus":"up","EnableOptimization":null,"TrafficRate":1.5,"DropRate":0.1,"Ports":[{"PortName":"0","Role":"WAN","Status":"Up","Mac":"02:00:00:00:00:01"}],"Capabilities":["RemoteAccess","Dpi"]}');
INSERT INTO "devices" VALUES('sag3sw2ormbecr9h',1181375973637612,'sag-7mdwdym88i186t7m72',11,0,'',1795970699533197,0,'{"CreateTime":1795970699024,"Ports":[{"PortName":"0","Role":"WAN","Status":"Down","Mac":""},{"PortName":"1","Role":"LAN","Status":"Down","Mac":""},{"PortName":"2","Role":"MGT","Status":"Down","Mac":""},{"PortName":"3","Role":"ECC","Status":"Down","Mac":""},{"PortName":"4","Role":"NONE","Status":"Down","Mac":""},{"PortName":"5","Role":"NONE","Status":"Down","Mac":""}],"Wan":{"0":{"IPType":"DHCP","Priority":10,"Weight":100}},"RouteProtocol":"STATIC","Snat":"DISABLE","Ha":{"Mode":"NONE"},"Slot":1,"SealedKey":"vo/wqpavMqwb+tnU65S0ndpZHd70c3qkmqOBMdGzAxdr801XwpaV+ouPVcO8L/ZWkebtvGwVa3kDqaxw"}','{}');
CREATE TABLE links (
        kind TEXT NOT NULL,
        a TEXT NOT NULL,
        b TEXT NOT NULL,
        created BIGINT NOT NULL,
        PRIMARY KEY (kind, a, b));
INSERT INTO "links" VALUES('acl','sag-7mdwdym88i186t7m72','acl-8t3bf55gu473oui5ef',1795970699156412);
INSERT INTO "links" VALUES('qos','sag-7mdwdym88i186t7m72','qos-ovad4hxi1a1cnihwap',1795970699190168);
INSERT INTO "links" VALUES('ccn','sag-7mdwdym88i186t7m72','ccn-1teqorsji47xb90ue8',1795970699206205);
INSERT INTO "links" VALUES('flowlog','sag-7mdwdym88i186t7m72','fl-jcku27ysvi4xe8ysyq',1795970699533120);
CREATE TABLE migrations (version BIGINT PRIMARY KEY);
INSERT INTO "migrations" VALUES(1);
INSERT INTO "migrations" VALUES(2);
CREATE TABLE nonces (
        key_id TEXT NOT NULL,
        nonce TEXT NOT NULL,
        expires BIGINT NOT NULL,
        PRIMARY KEY (key_id, nonce));
CREATE TABLE objects (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        uid BIGINT NOT NULL,
        region TEXT NOT NULL,
        parent TEXT NOT NULL,
        name TEXT NOT NULL,
        seq BIGINT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, id));
INSERT INTO "objects" VALUES('gateway','sag-7mdwdym88i186t7m72',1181375973637612,'cn-shanghai','','gw-old',1795970699025189,'{"Name":"gw-old","Description":"old","MaxBandWidth":50,"CreateTime":1795970699024,"EndTime":1798562699024,"City":"cn-shanghai","SmartAGUid":1181375973637612,"ResourceGroupId":"rg-default","RoutingStrategy":"static","SecurityLockThreshold":0,"CidrBlock":"10.7.0.0/16","DpiStatus":"Off","DpiMonitorStatus":"Inactive","AccessPointId":101,"UpBandwidth4G":0,"UpBandwidthWan":0,"Bandwidth":50,"HardwareVersion":"sag-vcpe","InstanceType":"sag-vcpe","HaType":"warm_backup","Status":"Active","SmartAGId":"sag-7mdwdym88i186t7m72","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('order','204303911937901',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','',1795970699025446,'{"AutoPay":false,"MaxBandWidth":50,"Period":1,"ChargeType":"PREPAY","SmartAGId":"sag-7mdwdym88i186t7m72","CreateTime":1795970699024,"OrderId":"204303911937901","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('acl','acl-8t3bf55gu473oui5ef',1181375973637612,'cn-shanghai','','acl-old',1795970699065841,'{"Name":"acl-old","ResourceGroupId":"rg-default","AclId":"acl-8t3bf55gu473oui5ef","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('acl_rule','acr-3nismo2gnkbmxrowhh',1181375973637612,'cn-shanghai','acl-8t3bf55gu473oui5ef','one',1795970699073433,'{"Name":"one","Description":"rule","Direction":"in","SourceCidr":"192.168.0.0/16","DestCidr":"10.0.0.0/8","IpProtocol":"TCP","SourcePortRange":"-1/-1","DestPortRange":"-1/-1","Policy":"drop","Priority":9,"Type":"LAN","AclId":"acl-8t3bf55gu473oui5ef","GmtCreate":1795970699073,"AcrId":"acr-3nismo2gnkbmxrowhh","RegionId":"cn-shanghai","DpiSignatureIds":["3"]}');
INSERT INTO "objects" VALUES('acl_rule','acr-e572bb79jrkp3j8m1e',1181375973637612,'cn-shanghai','acl-8t3bf55gu473oui5ef','two',1795970699086109,'{"Name":"two","Description":"rule","Direction":"out","SourceCidr":"192.168.0.0/16","DestCidr":"10.0.0.0/8","IpProtocol":"TCP","SourcePortRange":"-1/-1","DestPortRange":"-1/-1","Policy":"drop","Priority":8,"Type":"LAN","AclId":"acl-8t3bf55gu473oui5ef","GmtCreate":1795970699085,"AcrId":"acr-e572bb79jrkp3j8m1e","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('acl_rule','acr-lgmf9sn7ars99h4res',1181375973637612,'cn-shanghai','acl-8t3bf55gu473oui5ef','three',1795970699096862,'{"Name":"three","Description":"rule","Direction":"in","SourceCidr":"192.168.0.0/16","DestCidr":"10.0.0.0/8","IpProtocol":"TCP","SourcePortRange":"-1/-1","DestPortRange":"-1/-1","Policy":"drop","Priority":7,"Type":"LAN","AclId":"acl-8t3bf55gu473oui5ef","GmtCreate":1795970699090,"AcrId":"acr-lgmf9sn7ars99h4res","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('qos','qos-ovad4hxi1a1cnihwap',1181375973637612,'cn-shanghai','','qos-old',1795970699170445,'{"QosName":"qos-old","QosDescription":"text","ResourceGroupId":"rg-default","QosId":"qos-ovad4hxi1a1cnihwap","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('qos_policy','qospy-0c2qx447dwmkzb4scr',1181375973637612,'cn-shanghai','qos-ovad4hxi1a1cnihwap','pol',1795970699173843,'{"Description":"class","Priority":2,"SourceCidr":"10.0.0.0/8","DestCidr":"10.0.0.0/8","IpProtocol":"ALL","SourcePortRange":"-1/-1","DestPortRange":"-1/-1","Name":"pol","QosId":"qos-ovad4hxi1a1cnihwap","QosPolicyId":"qospy-0c2qx447dwmkzb4scr","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('qos_car','qoscar-nn7n1c61ofctau72ve',1181375973637612,'cn-shanghai','qos-ovad4hxi1a1cnihwap','car',1795970699181966,'{"Description":"car","Priority":3,"LimitType":"Absolute","MinBandwidthAbs":1,"MaxBandwidthAbs":5,"Name":"car","QosId":"qos-ovad4hxi1a1cnihwap","QosCarId":"qoscar-nn7n1c61ofctau72ve","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('ccn','ccn-1teqorsji47xb90ue8',1181375973637612,'cn-shanghai','','ccn-old',1795970699198380,'{"Name":"ccn-old","CidrBlock":"10.0.0.0/8","CreateTime":1795970699198,"ResourceGroupId":"rg-default","InterworkingStatus":"enable","Status":"Active","CcnId":"ccn-1teqorsji47xb90ue8","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('grant_cen','ccn-1teqorsji47xb90ue8/cen-1',1181375973637612,'cn-shanghai','ccn-1teqorsji47xb90ue8','',1795970699218144,'{"CcnInstanceId":"ccn-1teqorsji47xb90ue8","CenInstanceId":"cen-1","CenUid":5,"GrantRuleId":"c30ec8bc-42d7-2f32-ca82-18048c23b9f8","CcnUid":1181375973637612,"GmtCreate":1795970699218,"GmtModified":1795970699218,"GrantTrafficService":false,"Key":"ccn-1teqorsji47xb90ue8/cen-1","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('snat','snat-sh4g1ejrgn3f08mq0z',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','',1795970699230380,'{"CidrBlock":"10.7.1.0/24","SnatIp":"192.0.2.9","CreateTime":1795970699230,"InstanceId":"snat-sh4g1ejrgn3f08mq0z","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('dnat','fwd-ml9s171fupea7wpm6n',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','',1795970699246425,'{"Type":"Intranet","ExternalIp":"192.0.2.10","ExternalPort":"80","InternalIp":"10.7.0.2","InternalPort":"80","IpProtocol":"TCP","SagId":"sag-7mdwdym88i186t7m72","CreateTime":1795970699246,"DnatEntryId":"fwd-ml9s171fupea7wpm6n","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('health','hc-dyursli3wvg7at2kql',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','check-old',1795970699262410,'{"Name":"check-old","Description":"hc","DstIpAddr":"192.0.2.1","DstPort":0,"SrcIpAddr":"10.7.0.1","SrcPort":0,"Type":"ICMP_ECHO","ProbeInterval":2000,"ProbeCount":1,"ProbeTimeout":1000,"RttThreshold":-1,"RttFailThreshold":3,"FailCountThreshold":3,"SmartAGId":"sag-7mdwdym88i186t7m72","CreateTime":1795970699262,"HcInstanceId":"hc-dyursli3wvg7at2kql","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('distribution','sag-7mdwdym88i186t7m72/local/STATIC/10.7.0.0/16',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','',1795970699274423,'{"SmartAGId":"sag-7mdwdym88i186t7m72","RouteSource":"STATIC","SourceType":"local","RouteDistribution":"no_publish_and_publish_on_health_success","HcInstanceId":"hc-dyursli3wvg7at2kql","DestCidrBlock":"10.7.0.0/16","CreateTime":1795970699274,"Key":"sag-7mdwdym88i186t7m72/local/STATIC/10.7.0.0/16","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('flowlog','fl-jcku27ysvi4xe8ysyq',1181375973637612,'cn-shanghai','','log-old',1795970699336931,'{"Name":"log-old","Description":"fl","ActiveAging":300,"InactiveAging":15,"OutputType":"netflow","NetflowServerIp":"192.0.2.5","NetflowServerPort":9995,"NetflowVersion":"V9","Status":"Active","ResourceGroupId":"rg-default","FlowLogId":"fl-jcku27ysvi4xe8ysyq","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('grant_vbr','sag-7mdwdym88i186t7m72/vbr-1',1181375973637612,'cn-shanghai','sag-7mdwdym88i186t7m72','',1795970699582347,'{"SmartAGId":"sag-7mdwdym88i186t7m72","VbrInstanceId":"vbr-1","VbrRegionId":"cn-shanghai","VbrUid":7,"InstanceId":"sgv-cjmztozobh7nkjojf8","SmartAGUid":1181375973637612,"CreateTime":1795970699582,"Key":"sag-7mdwdym88i186t7m72/vbr-1","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('gateway','sag-402oytyvlo0d0bmz0f',1181375973637612,'cn-shanghai','','',1795970699609555,'{"UserCount":5,"DataPlan":5,"CreateTime":1795970699609,"EndTime":1798562699609,"City":"cn-shanghai","SmartAGUid":1181375973637612,"ResourceGroupId":"rg-default","RoutingStrategy":"static","SecurityLockThreshold":0,"CidrBlock":"172.16.0.0/16","DpiStatus":"Off","DpiMonitorStatus":"Inactive","AccessPointId":101,"UpBandwidth4G":0,"UpBandwidthWan":0,"HardwareVersion":"software","InstanceType":"software","Status":"Active","SmartAGId":"sag-402oytyvlo0d0bmz0f","RegionId":"cn-shanghai","EnterpriseCode":"1a2b3","AppDNS":["192.0.2.53"]}');
INSERT INTO "objects" VALUES('order','207274206844259',1181375973637612,'cn-shanghai','sag-402oytyvlo0d0bmz0f','',1795970699609588,'{"AutoPay":false,"Period":1,"ChargeType":"PREPAY","SmartAGId":"sag-402oytyvlo0d0bmz0f","CreateTime":1795970699609,"OrderId":"207274206844259","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('app_user','sag-402oytyvlo0d0bmz0f/li',1181375973637612,'cn-shanghai','sag-402oytyvlo0d0bmz0f','li',1795970699676793,'{"UserMail":"li@example.com","ClientIp":"172.16.0.5","Bandwidth":2000,"UserName":"li","State":1,"IsStaticIp":1,"AccelerateBandwidth":0,"SealedPassword":"k2rW6Ad1CsgjhE3Qkk6ImXIFSx6mPLiRw5tOS3ffJz9T5hpk2w==","Key":"sag-402oytyvlo0d0bmz0f/li","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('enterprise_code','1a2b3',1181375973637612,'cn-shanghai','','',1795970699742193,'{"IsDefault":true,"EnterpriseCode":"1a2b3","RegionId":"cn-shanghai"}');
INSERT INTO "objects" VALUES('app_state','sag-402oytyvlo0d0bmz0f',1181375973637612,'cn-shanghai','sag-402oytyvlo0d0bmz0f','sag-402oytyvlo0d0bmz0f',1795970700115359,'{"Clients":[{"UserName":"li","ClientIp":"172.16.0.5","OnlineTime":"1559125519"}],"Flow":{"202611":{"li":77}},"SmartAGId":"sag-402oytyvlo0d0bmz0f","RegionId":"cn-shanghai"}');
CREATE TABLE policies (
        uid BIGINT NOT NULL,
        user_name TEXT NOT NULL,
        name TEXT NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (uid, user_name, name));
CREATE INDEX nonces_expires ON nonces (expires);
CREATE INDEX objects_list ON objects (kind, uid, region, seq);
CREATE INDEX objects_parent ON objects (kind, parent, seq);
CREATE INDEX links_back ON links (kind, b);
CREATE INDEX devices_sag ON devices (sag);
CREATE INDEX devices_changed ON devices (changed);
CREATE INDEX audit_at ON audit (uid, at);
CREATE INDEX audit_time ON audit (at);
COMMIT;
