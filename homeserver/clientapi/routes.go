package clientapi

// tables are the route lists, one beside the handlers of each noun.
var tables = [][]route{
	accountRoutes,
	accountDataRoutes,
	adminRoutes,
	deviceRoutes,
	directoryRoutes,
	eventRoutes,
	filterRoutes,
	keyBackupRoutes,
	keyRoutes,
	loginRoutes,
	mediaRoutes,
	presenceRoutes,
	profileRoutes,
	pushRuleRoutes,
	pusherRoutes,
	receiptRoutes,
	registerRoutes,
	relationRoutes,
	roomRoutes,
	serverRoutes,
	syncRoutes,
	tagRoutes,
	toDeviceRoutes,
	typingRoutes,
}
